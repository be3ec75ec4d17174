// Light or dark: the system's choice until the reader presses the button.  Tells "themechange" to who draws by hand.
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
let chosen = null;

export const isDark = () => (chosen ?? (system.matches ? "dark" : "light")) === "dark";

function apply() {
  root.dataset.theme = isDark() ? "dark" : "light";
  root.classList.toggle("dark", isDark()); // what DataTables looks at
  if (button) button.textContent = isDark() ? "Light" : "Dark";
  if (button) button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  dispatchEvent(new Event("themechange"));
}

button?.addEventListener("click", () => {
  chosen = isDark() ? "light" : "dark";
  apply();
});
system.addEventListener("change", apply);
apply();
