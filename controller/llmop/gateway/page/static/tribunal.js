// What a tribunal did, step by step: who drafts, who reads, who judges; afterwards the drafts and what was found in them.

import { h } from "./dom.js";
import { Markdown } from "./markdown.js";

const STEPS = {
  draft: ["Drafts", "writing drafts"],
  critique: ["Critics read the drafts", "critics are reading"],
  refine: ["Authors refine", "authors are refining"],
  judge: ["The judge writes the answer", "the judge is writing"],
};
const OUTCOMES = {
  judged: "The judge wrote the answer from drafts and critiques.",
  agreed: "Every critic put the same draft first, so it is the answer.",
  fell_back: "The best draft is the answer.",
  failed: "The tribunal found no answer.",
};
const score = (number) => (typeof number === "number" ? String(Math.round(number * 10) / 10) : "?");

export class TribunalView {
  #opened = new Set();
  #isLeftAlone = true;

  constructor() {
    this.summary = h("summary", { onclick: () => (this.#isLeftAlone = false) });
    this.list = h("ol");
    this.element = h("details", { class: "tribunal", open: true }, this.summary, this.list);
  }

  // Drafts and critiques that a reader has opened stay open. Once there is an answer, all this makes room for it.
  show(tribunal, isRunning) {
    const { steps, transcript } = tribunal;
    const running = steps.findLast((step) => step.members.some((member) => member.outcome === null));
    const now = isRunning && running && !transcript ? (STEPS[running.step]?.[1] ?? running.step) : "";
    this.summary.replaceChildren(
      h("span", { class: "tribunal-title" }, "Tribunal"),
      h("span", { class: now ? "busy" : "" }, now || OUTCOMES[transcript?.outcome] || (isRunning ? "begins" : "ended early")),
    );
    this.list.replaceChildren(...steps.map((step) => this.#step(step, isRunning && !transcript)));
    if (this.#isLeftAlone) this.element.open = isRunning && !transcript;
    if (!transcript) return;
    this.list.append(...this.#drafts(transcript), ...this.#critiques(transcript));
    const reason =
      transcript.reason && transcript.outcome !== "judged"
        ? `${OUTCOMES[transcript.outcome] ?? ""} ${transcript.reason}`
        : OUTCOMES[transcript.outcome];
    const seconds = typeof transcript.seconds === "number" ? ` It took ${score(transcript.seconds)} s.` : "";
    this.list.append(h("li", { class: "outcome" }, `${reason ?? ""}${seconds}`));
  }

  #step({ step, round, members }, isRunning) {
    const title = STEPS[step]?.[0] ?? step;
    return h(
      "li",
      {},
      h("strong", {}, round && step !== "judge" ? `${title}, round ${round}` : title),
      h(
        "ul",
        { class: "members" },
        members.map((each) => h("li", { class: each.outcome ?? (isRunning ? "busy" : "") }, memberWords(each, isRunning))),
      ),
    );
  }

  #drafts({ drafts = [] }) {
    if (!drafts.length) return [];
    const ordered = drafts.toSorted((one, other) => one.round - other.round || (one.draft < other.draft ? -1 : 1));
    const rows = ordered.map((each) =>
      this.#fold(
        `draft-${each.round}-${each.draft}`,
        `Draft ${each.draft}${each.round ? `, refined ${each.round}x` : ""} by ${each.model}`,
        draftWords(each),
        () => {
          const place = h("div", { class: "markdown" });
          new Markdown(place).show(String(each.text ?? ""));
          return place;
        },
      ),
    );
    return [h("li", {}, h("strong", {}, "What was drafted"), rows)];
  }

  #critiques({ critiques = [] }) {
    if (!critiques.length) return [];
    const rows = critiques.map((each) => {
      const note = each.problem
        ? "not usable"
        : `${each.reviews.map((one) => `${one.draft} ${score(one.score)}`).join(", ")}${each.dissents ? " · dissents" : ""}`;
      return this.#fold(
        `critique-${each.round}-${each.member}`,
        `${each.member}, ${each.model}${each.round ? `, round ${each.round}` : ""}`,
        note,
        () =>
          each.problem
            ? h("p", { class: "plain" }, each.problem)
            : h(
                "ul",
                {},
                each.reviews.map((one) =>
                  h("li", {}, h("b", {}, `Draft ${one.draft}: ${score(one.score)} of 10. `), one.findings.join(" · ")),
                ),
              ),
      );
    });
    return [h("li", {}, h("strong", {}, "What the critics found"), rows)];
  }

  #fold(name, title, note, content) {
    const element = h(
      "details",
      { class: "fold", open: this.#opened.has(name) },
      h("summary", {}, h("span", {}, title), h("span", { class: "note" }, note)),
    );
    const fill = () => element.children.length < 2 && element.append(content());
    if (element.open) fill();
    element.addEventListener("toggle", () => {
      if (element.open) fill();
      this.#opened[element.open ? "add" : "delete"](name);
    });
    return element;
  }
}

function memberWords({ member, model, outcome, seconds }, isRunning) {
  const who = model ? `${member} · ${model}` : member;
  if (outcome === "answered") return `${who} · ${score(seconds)} s`;
  return outcome === null ? (isRunning ? `${who} …` : who) : `${who} · ${outcome}`;
}

function draftWords({ scores = [], standing }) {
  return scores.length ? `standing ${score(standing)} · scores ${scores.map(score).join(", ")}` : "not scored";
}
