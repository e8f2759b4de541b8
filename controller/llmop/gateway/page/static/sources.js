// What an assistant cites: a card per passage, and the links in the answer that lead there.

import { h } from "./dom.js";

let made = 0;

export class SourcesView {
  #name = `source-${++made}`;
  #known = new Map();

  constructor() {
    this.element = h("section", { class: "sources", "aria-label": "Sources", hidden: true });
  }

  // For Markdown: where [number] leads, or null where there is no such source.
  cite = (number) => {
    const place = `${this.#name}-${number}`;
    if (!this.#known.has(number)) return null;
    const follow = (event) => {
      event.preventDefault();
      const card = document.getElementById(place);
      card?.scrollIntoView({ block: "nearest" });
      card?.focus();
    };
    return { href: `#${place}`, class: "citation", title: this.#known.get(number), onclick: follow };
  };

  show({ found, citations }) {
    this.#known = new Map(citations.map((each) => [each.index, String(each.filename ?? "")]));
    this.element.hidden = false;
    this.element.replaceChildren(
      ...(found === false
        ? [h("p", { class: "note" }, "Nothing that fits was found in the documents.")]
        : [
            h("h3", {}, citations.length === 1 ? "Source" : "Sources"),
            h(
              "ol",
              {},
              citations.map((each) => this.#card(each)),
            ),
          ]),
    );
  }

  #card({ index, filename, page, score, text }) {
    const facts = [
      page === null || page === undefined ? "" : `page ${page}`,
      typeof score === "number" ? `score ${score.toFixed(2)}` : "",
    ];
    return h(
      "li",
      { id: `${this.#name}-${index}`, tabindex: -1, class: "card" },
      h(
        "p",
        { class: "card-head" },
        h("span", { class: "number" }, `[${index}]`),
        h("b", {}, String(filename ?? "")),
        h("span", { class: "note" }, facts.filter(Boolean).join(" · ")),
      ),
      h("blockquote", { class: "plain" }, String(text ?? "")),
    );
  }
}
