// How the page says times, states and failures.

// "40 s", "2 min", "3 h": rounded up, as waiting goes.
export function duration(seconds) {
  if (seconds <= 90) return `${Math.max(1, Math.ceil(seconds))} s`;
  if (seconds <= 90 * 60) return `${Math.ceil(seconds / 60)} min`;
  return `${Math.ceil(seconds / 3600)} h`;
}

// What is left of a time: "40 s", "12 min", "3 h 05 min", "2 d 4 h", rounded down.
export function remaining(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 2) return `${Math.max(0, Math.floor(seconds))} s`;
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const CLOCK_WITH_SECONDS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const date = (at) => new Date(at * 1000);

// Times are epoch seconds and shown as the reader's clock has them: "14:05", "29 Nov 02:10" where it is not the day of `now`.
export function clock(at, now) {
  const day = DAY.format(date(at));
  return day === DAY.format(date(now)) ? CLOCK.format(date(at)) : `${day} ${CLOCK.format(date(at))}`;
}

export const clockWithSeconds = (at) => CLOCK_WITH_SECONDS.format(date(at));

export const about = (seconds) => `~${duration(seconds)}`;

// What /v1/models says below "llmop".
export function stateOf(facts) {
  if (facts.why) {
    if (facts.ready_in_seconds) return `${facts.why}, ready in ${about(facts.ready_in_seconds)}`;
    if (facts.starts_in_seconds) return `${facts.why}, starts in ${about(facts.starts_in_seconds)}`;
    return facts.state === "asleep" ? `${facts.why}, wakes on demand` : facts.why;
  }
  switch (facts.state) {
    case "ready":
      return facts.replicas_ready > 1 ? `ready, ${facts.replicas_ready} replicas` : "ready";
    case "loading":
      return facts.ready_in_seconds ? `loading, ready in ${about(facts.ready_in_seconds)}` : "loading";
    case "pending":
      if (facts.ready_in_seconds) return `its job waits, ready in ${about(facts.ready_in_seconds)}`;
      return facts.starts_in_seconds ? `its job waits, starts in ${about(facts.starts_in_seconds)}` : "its job waits to start";
    case "asleep":
      return "at zero, wakes on demand";
    case "draining":
      return "stopping, takes nothing new";
    default:
      return "no replica, none on its way";
  }
}

const WAITED_FOR = /^(?:([\w.-]+(?:, [\w.-]+)*) (\S+): )?(pending|loading|waiting for a replica)(?:, (?:starts|ready) in ~(\d+ (?:s|min)))?$/;

// A comment of a stream that waits, as the gateway writes them, and `llmop workloads` for the members of a virtual model; null for those
// of others.
export function progressOf(comment) {
  const queued = /^queued (\d+)$/.exec(comment);
  if (queued)
    return queued[1] === "1"
      ? "All replicas are busy; your request is next"
      : `All replicas are busy; ${queued[1]} requests wait, yours among them`;
  const said = comment.split("; ").map((part) => WAITED_FOR.exec(part));
  return said.every(Boolean) ? said.map(waitOf).join("; ") : null;
}

function waitOf([, members, model, stage, time]) {
  const what = members ? model : "the model";
  const said = {
    pending: `waiting for ${members ? `the job of ${model}` : "the model's job"} to start${time ? `, in ~${time}` : ""}`,
    loading: `${what} is loading${time ? `, ready in ~${time}` : ""}`,
    "waiting for a replica": `waking ${what}`,
  }[stage];
  return members ? `${members}: ${said}` : said[0].toUpperCase() + said.slice(1);
}

const BY_CODE = {
  invalid_api_key: "The key is not known here, or no longer valid. Sign in again.",
  rate_limit_exceeded: "You have reached a limit of your key.",
  saturated: "All replicas of this model are busy.",
  no_endpoint: "No replica of this model is running.",
  shutting_down: "The gateway is restarting.",
  no_table: "The gateway has just started and does not know its models yet.",
  controller_away: "The controller does not answer. Models are served as before.",
  workloads_away: "The service behind tribunals and assistants does not answer.",
  upstream_failed: "The model's replicas could not be reached.",
  stream_broken: "The answer broke off.",
  empty: "The model ended its answer without a word.",
  model_not_found: "There is no such model, or your key may not use it.",
};
const BY_STATUS = {
  401: BY_CODE.invalid_api_key,
  413: "The conversation is too long for one request.",
  429: "Too many requests.",
  503: "The model is not available.",
};

// A sentence for people, and what was said in detail.
export function failureOf(failure) {
  const sentence = BY_CODE[failure.code] ?? BY_STATUS[failure.status] ?? "The request failed.";
  return { sentence, detail: failure.message };
}
