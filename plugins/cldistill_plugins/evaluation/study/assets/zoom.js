// A picture of the set, large; the arrows go through the source and all attempts in place, so that differences jump.
const dialog = document.getElementById("zoom");
const order = [...document.querySelectorAll("[data-zoom]")];
let current = 0;

function show(index) {
  current = (index + order.length) % order.length;
  const image = order[current].querySelector("img");
  document.getElementById("zoom-picture").src = image.src;
  document.getElementById("zoom-picture").alt = image.alt;
  document.getElementById("zoom-title").textContent = image.alt;
}

export function zoom(index) {
  show(index);
  if (!dialog.open) dialog.showModal();
}

export const isZoomed = () => dialog.open;

for (const [index, button] of order.entries()) button.addEventListener("click", () => zoom(index));
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(current + 1);
  if (event.key === "ArrowLeft") show(current - 1);
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.getElementById("zoom-close").addEventListener("click", () => dialog.close());
