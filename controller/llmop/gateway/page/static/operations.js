// What operators look at: clusters, deployments, replicas and their times, load, scaling. It is asked for again while it is looked at.

import * as axis from "./axis.js";
import { announce, byId, h, Rows } from "./dom.js";
import { clock, clockWithSeconds, failureOf, remaining } from "./words.js";

const PERIOD = 5_000; // milliseconds between two looks
const MOST_STEPS = 100; // of scaling, the newest

export class Operations {
  #timer = 0;
  #asking = null;
  #isOpen = false;
  #shown = null;
  #known = null; // the last answer
  #tables = Object.fromEntries(["deployments", "replicas", "steps"].map((id) => [id, new Rows(byId(id), row)]));
  #clusters = new Rows(byId("clusters"), clusterView);

  // `ask` gets the last answer and gives the next, in which is the overview; `failed` gets what goes wrong and says whether to look again.
  constructor({ ask, failed }) {
    Object.assign(this, { ask, failed });
    document.addEventListener("visibilitychange", this.#look);
    byId("axis-span").addEventListener("change", this.#draw);
  }

  open() {
    this.#isOpen = true;
    this.#look();
  }

  // Nothing is asked any more until it is opened again.
  close() {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    this.#asking?.abort();
  }

  end() {
    this.close();
    document.removeEventListener("visibilitychange", this.#look);
    byId("axis-span").removeEventListener("change", this.#draw);
    for (const rows of [this.#clusters, ...Object.values(this.#tables)]) rows.show([]);
    byId("axis").replaceChildren();
    for (const id of ["operations-time", "operations-problem"]) byId(id).textContent = "";
  }

  #look = () => {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    if (this.#isOpen && !document.hidden) this.#refresh();
  };

  async #refresh() {
    const asking = (this.#asking = new AbortController());
    try {
      const answer = await this.ask(this.#known, asking.signal);
      if (asking.signal.aborted) return;
      this.#known = answer;
      this.#show(answer.overview);
    } catch (error) {
      if (asking.signal.aborted || !this.failed(error)) return;
      this.#complain(error);
    }
    this.#timer = setTimeout(this.#look, PERIOD);
  }

  #show(overview) {
    const { now, clusters, deployments, left_out: leftOut } = overview;
    this.#shown = overview;
    if (byId("operations-problem").textContent) announce("The controller answers again.");
    byId("operations-problem").textContent = "";
    byId("operations-time").textContent = [`as of ${clockWithSeconds(now)}`, ...missing(leftOut)].join(", ");
    this.#clusters.show(clusters.map((each) => [each.name, clusterFacts(each, now)]));
    const replicas = deployments.flatMap((of) => of.replicas.map((each) => [`${of.namespace}/${each.name}`, replicaCells(each, of, now)]));
    const steps = deployments
      .flatMap((of) => (of.scaling?.steps ?? []).map((step) => ({ of, step })))
      .sort((one, other) => other.step.at - one.step.at)
      .slice(0, MOST_STEPS);
    this.#fill("deployments", deployments.map((each) => [name(each), deploymentCells(each, now)]));
    this.#fill("replicas", replicas);
    this.#fill("steps", steps.map(({ of, step }) => [`${name(of)} ${step.at} ${step.from} ${step.to}`, stepCells(of, step, now)]));
    this.#draw();
  }

  #fill(id, rows) {
    const columns = byId(id).parentElement.tHead.rows[0].cells.length;
    this.#tables[id].show(rows.length ? rows : [["none", [{ text: "None.", columns }]]]);
  }

  #draw = () => {
    if (this.#shown) axis.draw(this.#shown, Number(byId("axis-span").value));
  };

  // The same words as long as the reason is the same: they are read aloud when they change.
  #complain(error) {
    const { sentence, detail } = failureOf(error);
    const words = error.code === "controller_away" ? [sentence] : [sentence, detail];
    if (this.#shown) words.push(`What you see is from ${clockWithSeconds(this.#shown.now)}.`);
    const text = words.join(" ");
    if (byId("operations-problem").textContent !== text) byId("operations-problem").textContent = text;
  }
}

const name = ({ namespace, name }) => `${namespace}/${name}`;

const missing = (leftOut) =>
  Object.entries(leftOut)
    .filter(([, number]) => number > 0)
    .map(([what, number]) => `without ${number} more ${what}`);

// A row of cells: texts, or {text, note, state, at, columns, isNumber}. The first names the row.
function row(cells) {
  return h(
    "tr",
    {},
    cells.map((cell, index) => {
      const { text, note, state, at, columns, isNumber } = typeof cell === "string" ? { text: cell } : cell;
      const words = at === undefined || at === null ? text : h("time", { datetime: new Date(at * 1000).toISOString() }, text);
      return h(
        index === 0 && !columns ? "th" : "td",
        { scope: index === 0 && !columns ? "row" : null, colspan: columns, class: isNumber ? "number" : null, "data-state": state },
        state ? h("span", { class: "dot", "aria-hidden": "true" }) : null,
        words,
        note ? h("span", { class: "note" }, note) : null,
      );
    }),
  );
}

const NOTHING = { text: "–" };

function deploymentCells(each, now) {
  const { load, scaling } = each;
  const number = (value) => (value === null || value === undefined ? { text: "–", isNumber: true } : { text: String(value), isNumber: true });
  return [
    { text: each.name, note: each.namespace },
    { text: each.model, note: each.runtime },
    `${each.ready} of ${each.desired}`,
    {
      text: each.is_ready ? "Ready" : each.reason || "Unknown",
      note: each.message,
      state: each.is_ready ? (each.desired ? "ready" : "asleep") : each.is_stalled ? "bad" : "loading",
    },
    nextCell(each.next, now),
    load && !load.is_whole ? { ...number(load.in_flight), note: "not of all gateways" } : number(load?.in_flight),
    number(load?.queued),
    number(load?.tokens_per_second),
    scaling ? { text: `${scaling.min} to ${scaling.max}`, note: `wants ${each.desired}` } : { text: "fixed", note: `at ${each.desired}` },
  ];
}

const SOURCES = new Map([
  ["Slurm", "says Slurm"],
  ["EarlierReplicas", "as earlier ones did"],
]);

function nextCell(next, now) {
  if (!next) return NOTHING;
  const ready = next.ready_at === null ? "" : `ready about ${clock(next.ready_at, now)}`;
  if (next.starts_at === null) return { text: ready, at: next.ready_at };
  return {
    text: `starts ${clock(next.starts_at, now)}`,
    at: next.starts_at,
    note: [SOURCES.get(next.source), ready].filter(Boolean).join(", "),
  };
}

// What is not among them has gone wrong.
const PHASES = new Map([
  ["Submitting", "pending"],
  ["Pending", "pending"],
  ["Starting", "loading"],
  ["Loading", "loading"],
  ["Ready", "ready"],
  ["Suspect", "loading"],
  ["Draining", "draining"],
  ["Ended", "none"],
]);

function replicaCells(each, of, now) {
  const time = (at) => (at === null ? NOTHING : { text: clock(at, now), at });
  const started =
    each.started_at === null && each.estimated_start_at !== null && each.ended_at === null
      ? { text: clock(each.estimated_start_at, now), at: each.estimated_start_at, note: "expected" }
      : time(each.started_at);
  const reason = each.reason === each.phase ? "" : each.reason;
  return [
    { text: each.name, note: name(of) },
    { text: each.phase || "Unknown", note: reason, state: PHASES.get(each.phase) ?? "bad" },
    each.job_id ?? NOTHING,
    each.node ? { text: each.node, note: each.restarts ? `restarts: ${each.restarts}` : "" } : NOTHING,
    time(each.created_at),
    started,
    time(each.ready_at),
    endCell(each, now),
  ];
}

function endCell({ ended_at, ends_at }, now) {
  if (ended_at !== null) return { text: clock(ended_at, now), at: ended_at, note: "over" };
  if (ends_at === null) return NOTHING;
  return { text: clock(ends_at, now), at: ends_at, note: ends_at > now ? `${remaining(ends_at - now)} left` : "overdue" };
}

const stepCells = (of, step, now) => [
  { text: clock(step.at, now), at: step.at },
  name(of),
  `${step.from} to ${step.to}`,
  { text: step.reason, note: step.message },
];

const STATES = new Map([
  ["True", "ready"],
  ["False", "bad"],
]);

function clusterFacts(each, now) {
  const looked = each.seen_at === null ? "not looked at yet" : `looked at ${remaining(now - each.seen_at)} ago`;
  const state = each.reachable === "True" ? "answers" : [each.reason || "Unknown", each.message].filter(Boolean).join(": ");
  return { name: each.name, driver: each.driver, words: `${state}, ${looked}`, state: STATES.get(each.reachable) ?? "pending" };
}

const clusterView = ({ name, driver, words, state }) =>
  h("li", { "data-state": state }, h("span", { class: "dot", "aria-hidden": "true" }), h("b", {}, name), ` ${driver}: ${words}`);
