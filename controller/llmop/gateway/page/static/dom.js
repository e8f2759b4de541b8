// Elements without markup: texts become text nodes, whatever is in them.

// h("a", {class: "x", href: "y", onclick: f}, "text", node): false, null and undefined are left out.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

let clearing = 0;

// Says something to screen readers, once.
export function announce(text) {
  const region = byId("announcer");
  region.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => (region.textContent = ""), 20_000);
}
