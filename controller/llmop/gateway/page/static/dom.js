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

// The children of `parent`, each made of a value that becomes JSON. One whose value is the same stays as it is, and with it what somebody
// has selected in it.
export class Rows {
  #known = new Map();

  constructor(parent, make) {
    Object.assign(this, { parent, make });
  }

  // `values` by key.
  show(values) {
    const before = this.#known;
    this.#known = new Map();
    for (const [key, value] of values) {
      const said = JSON.stringify(value);
      const old = before.get(key);
      this.#known.set(key, old?.said === said ? old : { said, element: this.make(value) });
    }
    for (const [key, { element }] of before) if (this.#known.get(key)?.element !== element) element.remove();
    let place = this.parent.firstElementChild;
    for (const { element } of this.#known.values()) {
      if (element === place) place = place.nextElementSibling;
      else this.parent.insertBefore(element, place);
    }
  }
}

let clearing = 0;

// Says something to screen readers, once.
export function announce(text) {
  const region = byId("announcer");
  region.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => (region.textContent = ""), 20_000);
}
