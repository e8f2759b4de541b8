// A message in the page. While an answer comes it is drawn again at a pace that leaves the browser most of its time.

import { copyText, Markdown } from "./markdown.js";
import { announce, h } from "./dom.js";
import { SourcesView } from "./sources.js";
import { TribunalView } from "./tribunal.js";
import { failureOf } from "./words.js";

const PACE = 40; // milliseconds between two drawings, at least
const SHARE = 4; // a drawing is followed by at least so many times its own time

export const questionView = (text) => h("article", { class: "question", "aria-label": "You" }, h("p", { class: "plain" }, text));

export class AnswerView {
  #due = 0;
  #rest = PACE;
  #tribunal = null;
  #counting = 0;

  constructor(message) {
    this.message = message;
    this.progress = h("p", { class: "progress", hidden: true });
    this.thought = h(
      "details",
      { class: "fold thought", hidden: true },
      h("summary", {}, "Thinking"),
      h("p", { class: "plain" }),
    );
    this.text = h("div", { class: "markdown" });
    this.sources = new SourcesView();
    this.markdown = new Markdown(this.text, this.sources.cite);
    this.foot = h("footer");
    this.head = h("header", {}, message.model);
    this.element = h(
      "article",
      { class: "answer", "aria-label": `Answer of ${message.model}` },
      this.head,
      this.progress,
      this.thought,
      this.text,
      this.sources.element,
      this.foot,
    );
  }

  // What is waited for; "" when nothing is.
  waitFor(text) {
    this.progress.hidden = text === "";
    this.progress.textContent = text;
  }

  // To be drawn soon: `around` is called with what draws.
  changed(around) {
    if (this.#due) return;
    this.#due = setTimeout(() => {
      this.#due = 0;
      const began = performance.now();
      around(() => this.draw());
      this.#rest = Math.max(PACE, (performance.now() - began) * SHARE);
    }, this.#rest);
  }

  draw() {
    const { message } = this;
    const isRunning = message.status === "running";
    if (message.tribunal) {
      if (!this.#tribunal) {
        this.#tribunal = new TribunalView();
        this.head.after(this.#tribunal.element);
      }
      this.#tribunal.show(message.tribunal, isRunning);
    }
    this.thought.hidden = !message.thought;
    if (message.thought) this.thought.lastChild.textContent = message.thought;
    this.markdown.show(message.content);
    this.element.classList.toggle("running", isRunning);
  }

  // The answer is over, for good or not. `retry` is null where it makes no sense.
  end(retry) {
    clearTimeout(this.#due);
    this.#due = 0;
    const { message } = this;
    this.waitFor("");
    if (message.sources) {
      this.sources.show(message.sources);
      this.markdown = new Markdown(this.text, this.sources.cite);
      this.text.replaceChildren();
    }
    this.draw();
    const notes = [
      message.status === "stopped" ? "stopped" : "",
      message.isCut ? "cut off at the longest answer" : "",
      ...timingOf(message),
    ];
    const copy = h("button", { type: "button", class: "quiet", onclick: () => copyText(message.content, copy) }, "Copy");
    const again = retry && h("button", { type: "button", class: "quiet", onclick: retry }, "Try again");
    this.foot.replaceChildren(
      ...[
        message.failure ? this.#notice(message.failure) : null,
        h("span", { class: "note" }, notes.filter(Boolean).join(" · ")),
        message.content && navigator.clipboard ? copy : null,
        again,
      ].filter(Boolean),
    );
  }

  withoutRetry() {
    clearInterval(this.#counting);
    for (const button of this.foot.querySelectorAll("button")) if (button.textContent === "Try again") button.remove();
    this.foot.querySelector(".countdown")?.remove();
  }

  #notice(failure) {
    const { sentence, detail } = failureOf(failure);
    const countdown = h("span", { class: "countdown" });
    const until = failure.failedAt + (failure.retryAfter ?? 0) * 1000;
    if (until > Date.now()) this.#count(countdown, until);
    return h("div", { class: "problem", role: "alert" }, h("b", {}, sentence), " ", countdown, h("p", { class: "note" }, detail));
  }

  #count(place, until) {
    const show = () => {
      const seconds = Math.ceil((until - Date.now()) / 1000);
      if (seconds > 0) {
        place.textContent = `Try again in ${seconds} s.`;
        return;
      }
      clearInterval(this.#counting);
      if (place.textContent) announce("You can try again now.");
      place.textContent = "You can try again now.";
    };
    this.#counting = setInterval(show, 1000);
    show();
  }
}

const SHORTEST = 300; // milliseconds that tell a speed

// A tribunal's tokens are those of all its calls, and say nothing of the answer's speed.
function timingOf({ timing = {}, tribunal }) {
  const { first, total, tokens } = timing;
  const said = [];
  if (first >= 50) said.push(`first word after ${(first / 1000).toFixed(1)} s`);
  if (tokens) said.push(tokens === 1 ? "1 token" : `${tokens} tokens`);
  if (tokens > 1 && total - first > SHORTEST && !tribunal)
    said.push(`${Math.round((tokens / (total - first)) * 1000)} per second`);
  return said;
}
