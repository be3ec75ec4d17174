// Two pictures on top of each other; the divider is an ordinary range input, so that keys and fingers work.
const frame = document.getElementById("slider");
const [under, over] = [frame.querySelector("img.under"), frame.querySelector("img.over")];
const range = frame.querySelector("input");

function move() {
  frame.style.setProperty("--split", `${range.value}%`);
  range.setAttribute("aria-valuetext", `${range.value} % ${over.alt}, the rest ${under.alt}`);
}

export function compare(left, right) {
  for (const [image, side] of [[over, left], [under, right]]) {
    image.hidden = !side.url;
    if (side.url) image.src = side.url;
    else image.removeAttribute("src");
    image.alt = side.label;
  }
  frame.querySelector(".side.left").textContent = left.label;
  frame.querySelector(".side.right").textContent = right.label;
  frame.hidden = !left.url && !right.url;
  move();
}

range.addEventListener("input", move);
