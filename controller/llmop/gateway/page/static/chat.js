// The conversation that is open: asking, answers as they come, stopping, trying again.

import * as api from "./api.js";
import * as conversations from "./conversation.js";
import { announce, byId, h } from "./dom.js";
import { AnswerView, questionView } from "./message.js";
import * as store from "./store.js";
import { failureOf, progressOf } from "./words.js";

const NEAR = 80; // pixels from the end: who has scrolled up wants to read there
const LONGEST_SAID = 3000; // characters of an answer that a screen reader is given at once

export class Chat {
  #running = null; // {controller, message, view}
  #last = null; // the view of the last answer

  // `ask` gives {key, model, kind, system, temperature, maxTokens}; `refused` is called when the key is not taken; `changed` with every change.
  constructor({ ask, refused, changed }) {
    Object.assign(this, { ask, refused, changed });
    this.log = byId("log");
    this.open(conversations.begin());
  }

  get isRunning() {
    return this.#running !== null;
  }

  open(conversation) {
    this.stop();
    this.#last?.withoutRetry();
    this.conversation = conversation;
    this.#last = null;
    this.log.replaceChildren();
    for (const message of conversation.messages) {
      if (message.role === "user") this.log.append(questionView(message.content));
      else this.#append(message).end(message === conversation.messages.at(-1) ? this.retry : null);
    }
    this.log.scrollTop = this.log.scrollHeight;
    this.changed();
  }

  // False if nothing can be asked now.
  send(text) {
    if (this.isRunning || !text.trim() || !this.ask().model) return false;
    this.conversation.messages.push({ role: "user", content: text });
    this.conversation.title ||= text.slice(0, 500).replace(/\s+/g, " ").trim().slice(0, 80);
    this.log.append(questionView(text));
    this.#answer();
    return true;
  }

  retry = () => {
    if (this.isRunning || !this.#last || !this.ask().model) return;
    this.conversation.messages.pop();
    this.#last.withoutRetry();
    this.#last.element.remove();
    this.#answer();
    byId("question").focus();
  };

  stop() {
    if (!this.#running) return;
    const { controller, message, view } = this.#running;
    this.#running = null;
    controller.abort();
    message.status = "stopped";
    this.#finish(message, view);
    announce("Stopped.");
  }

  #append(message) {
    const view = new AnswerView(message);
    this.#last = view;
    this.log.append(view.element);
    return view;
  }

  async #answer() {
    const { key, kind, ...asked } = this.ask();
    this.#last?.withoutRetry();
    const body = conversations.request(this.conversation, asked);
    const message = { role: "assistant", model: asked.model, content: "", status: "running", timing: {} };
    this.conversation.messages.push(message);
    this.conversation.model = asked.model;
    const view = this.#append(message);
    const controller = new AbortController();
    const running = (this.#running = { controller, message, view });
    const began = performance.now();
    const isStill = () => this.#running === running;
    view.draw();
    this.log.scrollTop = this.log.scrollHeight;
    this.#keep();
    let told = null; // what a comment says is waited for
    const showAwaited = () => {
      if (!isStill()) return;
      // A tribunal shows itself who is at work.
      const awaited = message.timing.first ? null : (told ?? (message.tribunal ? null : "Waiting for the first word"));
      view.waitFor(awaited ? `${awaited} … ${Math.round((performance.now() - began) / 1000)} s` : "");
    };
    const clock = setInterval(showAwaited, 1000);
    try {
      for await (const { comment, chunk } of api.chat(key, body, controller.signal)) {
        if (!isStill()) return;
        if (chunk) {
          conversations.take(message, chunk, kind);
          if (!message.timing.first && (message.content || message.thought)) message.timing.first = performance.now() - began;
          if (message.timing.first || message.tribunal) showAwaited();
          view.changed(this.#follow);
        } else if (progressOf(comment) !== told) {
          told = progressOf(comment);
          showAwaited();
          if (told) announce(told);
        }
      }
      if (!isStill()) return;
      message.status = "done";
      if (!message.content && !message.thought) message.failure = { message: "", code: "empty" };
    } catch (error) {
      if (!isStill()) return;
      message.status = "failed";
      message.failure = {
        message: String(error.message),
        status: error.status,
        code: error.code,
        retryAfter: error.retryAfter,
        failedAt: Date.now(),
      };
      if (error.tribunal) conversations.take(message, { llmop: { tribunal: error.tribunal } }, kind);
    } finally {
      clearInterval(clock);
    }
    message.timing.total = performance.now() - began;
    this.#running = null;
    this.#finish(message, view);
    if (message.failure?.status === 401) this.refused();
    else
      announce(
        message.failure
          ? failureOf(message.failure).sentence
          : `${message.model} answers: ${message.content.slice(0, LONGEST_SAID)}`,
      );
  }

  // Draws, and stays at the end if the reader was there.
  #follow = (draw) => {
    const isAtEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR;
    draw();
    if (isAtEnd) this.log.scrollTop = this.log.scrollHeight;
  };

  #finish(message, view) {
    this.#follow(() => view.end(this.retry));
    this.#keep();
  }

  #keep() {
    this.conversation.updated = Date.now();
    const kept = {
      ...this.conversation,
      messages: this.conversation.messages.map((each) => (each.status === "running" ? { ...each, status: "stopped" } : each)),
    };
    store.keep(kept);
    this.changed();
  }

  // The list of what is kept.
  listed(open, forget) {
    return store
      .conversations()
      .map((each) =>
        h(
          "li",
          { class: each.id === this.conversation.id ? "open" : "" },
          h(
            "button",
            {
              type: "button",
              class: "quiet title",
              "aria-current": each.id === this.conversation.id ? "true" : null,
              onclick: () => open(each),
            },
            conversations.titleOf(each),
          ),
          h(
            "button",
            {
              type: "button",
              class: "quiet remove",
              "aria-label": `Delete chat: ${conversations.titleOf(each)}`,
              onclick: () => forget(each),
            },
            "×",
          ),
        ),
      );
  }
}
