// Replicas on a time axis: what each has done until now, and what its walltime leaves of it. A picture; the table of replicas has the words.

import { byId, h } from "./dom.js";
import { clock } from "./words.js";

const PAST = 1 / 3; // of what is shown lies before now
const TICKS = [600, 1800, 3600, 7200, 6 * 3600, 12 * 3600, 86_400, 2 * 86_400]; // seconds between two
const FEWEST_TICKS = 4;

// `overview` as the gateway gives it; `hours` are shown.
export function draw(overview, hours) {
  const { now } = overview;
  const begin = now - hours * 3600 * PAST;
  const scale = { begin, end: begin + hours * 3600, now };
  const lanes = overview.deployments.flatMap((deployment) => {
    const drawn = deployment.replicas.map((replica) => lane(replica, scale)).filter(Boolean);
    return drawn.length ? [h("p", { class: "lanes-of" }, `${deployment.namespace}/${deployment.name}`), ...drawn] : [];
  });
  byId("axis").replaceChildren(
    h("div", { class: "ticks" }, ticks(scale)),
    lanes.length ? h("div", { class: "lanes" }, h("div", { class: "rules" }, rules(scale)), lanes) : h("p", { class: "note" }, "No replica in this time."),
  );
}

// What is drawn of a replica: {kind, from, to}; `to` is null where nobody knows the end. Of one that is over it is not kept when it answered,
// and of one that does not answer not since when.
export function spans({ phase, reason, is_ready, created_at, estimated_start_at, started_at, ready_at, ends_at, ended_at }, now) {
  const found = [{ kind: "waiting", from: created_at, to: started_at ?? ended_at ?? now }];
  if (ended_at !== null) {
    if (started_at !== null) found.push({ kind: "over", from: started_at, to: ended_at });
  } else if (started_at === null) {
    if (estimated_start_at !== null) found.push({ kind: "ahead", from: now, to: estimated_start_at });
  } else {
    const answers = Math.max(started_at, ready_at ?? now);
    const isBroken = reason === "Unhealthy";
    found.push({ kind: isBroken ? "unready" : "loading", from: started_at, to: answers });
    if (ready_at !== null) found.push({ kind: is_ready || phase === "Draining" ? "ready" : "unready", from: answers, to: now });
    found.push({ kind: "ahead", from: now, to: ends_at });
  }
  return found.filter(({ from, to }) => to === null || to > from);
}

function lane(replica, scale) {
  const drawn = spans(replica, scale.now).map((span) => bar(span, scale)).filter(Boolean);
  if (!drawn.length) return null;
  const { ends_at: end } = replica;
  if (end !== null && replica.ended_at === null && end >= scale.begin && end <= scale.end) {
    drawn.push(placed(h("i", { class: "mark", title: `walltime ends ${clock(end, scale.now)}` }), end, scale));
  }
  return h("div", { class: "lane" }, h("span", { class: "lane-name", title: replica.name }, replica.name), h("div", { class: "track" }, drawn));
}

const WORDS = {
  waiting: "waits",
  loading: "loads",
  ready: "answers",
  unready: "does not answer now",
  over: "is over",
  ahead: "still to come",
};

function bar({ kind, from, to }, scale) {
  const [left, right] = [Math.max(from, scale.begin), Math.min(to ?? scale.end, scale.end)];
  if (right <= left) return null;
  const times = `${clock(from, scale.now)} to ${to === null ? "an end that is not known" : clock(to, scale.now)}`;
  const element = placed(h("i", { class: `bar ${kind}`, title: `${WORDS[kind]}, ${times}` }), left, scale);
  element.style.width = percent(right - left, scale);
  return element;
}

function placed(element, at, scale) {
  element.style.left = percent(at - scale.begin, scale);
  return element;
}

const percent = (seconds, { begin, end }) => `${((100 * seconds) / (end - begin)).toFixed(3)}%`;

// At full hours and days of the reader's clock.
function marks({ begin, end }) {
  const step = TICKS.findLast((seconds) => (end - begin) / seconds >= FEWEST_TICKS);
  const offset = new Date(begin * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((begin - offset) / step) * step + offset; at < end; at += step) found.push(at);
  return found;
}

function ticks(scale) {
  return [
    ...marks(scale)
      .filter((at) => Math.abs(at - scale.now) > (scale.end - scale.begin) / 16) // room for the word
      .map((at) => placed(h("span", {}, clock(at, scale.now)), at, scale)),
    placed(h("span", { class: "now" }, "now"), scale.now, scale),
  ];
}

function rules(scale) {
  return [...marks(scale).map((at) => placed(h("i"), at, scale)), placed(h("i", { class: "now" }), scale.now, scale)];
}
