// The list of models with their states, and which one is chosen. It is asked for again while the page is looked at.

import { h, byId } from "./dom.js";
import { stateOf } from "./words.js";

const CALM = 15_000; // milliseconds between two looks
const BUSY = 4_000; // while one of them is on its way, or somebody waits for it

const KINDS = { tribunal: "tribunal", assistant: "assistant" };

export class Models {
  #rows = new Map();
  #timer = 0;
  #asking = null;
  known = new Map();
  chosen = "";
  mayOperate = false; // whether the key may see operations

  // `ask` gives what /v1/models lists; `failed` gets what goes wrong; `changed` is called after a choice and with news; `isAsked` says
  // whether the chosen model is being asked something.
  constructor({ ask, failed, changed, isAsked, chosen }) {
    Object.assign(this, { ask, failed, changed, isAsked, chosen });
    document.addEventListener("visibilitychange", this.#look);
  }

  end() {
    document.removeEventListener("visibilitychange", this.#look);
    clearTimeout(this.#timer);
    this.#asking?.abort();
    this.#asking = null;
    byId("models-list").replaceChildren();
  }

  #look = () => {
    clearTimeout(this.#timer);
    if (!document.hidden) this.refresh();
  };

  // Asks again, or takes what was `listed`. Throws nothing: `failed` hears of it.
  async refresh(listed = null) {
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    try {
      const found = listed ?? (await this.ask(asking.signal));
      if (asking.signal.aborted) return;
      this.#show(found);
    } catch (error) {
      if (asking.signal.aborted || !this.failed(error)) return;
    }
    clearTimeout(this.#timer);
    const isComing = [...this.known.values()].some(({ state }) => state === "loading" || state === "pending");
    const isWaitedFor = this.isAsked() && this.known.get(this.chosen)?.state !== "ready";
    if (!document.hidden) this.#timer = setTimeout(this.#look, isComing || isWaitedFor ? BUSY : CALM);
  }

  // Those that answer chats; the choice stays where it is, if it can.
  #show(listed) {
    this.mayOperate = listed.llmop?.operations === true;
    const able = listed.data.filter(({ llmop }) => llmop.protocols.includes("openai"));
    this.known = new Map(able.map(({ id, llmop }) => [id, llmop]));
    if (!this.known.has(this.chosen)) this.chosen = (able.find(({ llmop }) => llmop.state === "ready") ?? able[0])?.id ?? "";
    const list = byId("models-list");
    for (const [id, row] of this.#rows) {
      if (this.known.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    for (const [index, { id, llmop }] of able.entries()) {
      const row = this.#rows.get(id) ?? this.#make(id);
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
      row.element.dataset.state = llmop.state;
      row.kind.textContent = KINDS[llmop.kind] ?? "";
      if (row.state.textContent !== stateOf(llmop)) row.state.textContent = stateOf(llmop);
      row.input.checked = id === this.chosen;
    }
    byId("models-note").textContent = able.length ? "" : "There is no model that chats, or none that your key may use.";
    this.changed();
  }

  choose(id) {
    if (!this.known.has(id)) return;
    this.chosen = id;
    this.#rows.get(id).input.checked = true;
    this.changed();
  }

  #make(id) {
    const row = {
      input: h("input", { type: "radio", name: "model", value: id }),
      kind: h("span", { class: "kind" }),
      state: h("span", { class: "state" }),
    };
    row.input.addEventListener("change", () => this.choose(id));
    row.element = h(
      "label",
      { class: "model" },
      row.input,
      h("span", { class: "dot", "aria-hidden": "true" }),
      h("span", { class: "name" }, id),
      row.kind,
      row.state,
    );
    this.#rows.set(id, row);
    return row;
  }
}
