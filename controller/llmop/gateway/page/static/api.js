// The gateway's API, as any client sees it.

import { EventReader } from "./sse.js";

// Relative, for a proxy may serve the gateway below a path.
const address = (path) => new URL(path, document.baseURI);

// `status` is 0 where nobody answered, or the answer had begun; `retryAfter` is in seconds or null.
export class Failure extends Error {
  constructor(message, { status = 0, code = "", retryAfter = null, tribunal = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
    this.tribunal = tribunal;
  }
}

// What /v1/models answers: the models, and whether this key may see operations.
export const listModels = (key, signal) => get("v1/models", key, signal);

// `known` is what was got last, null at first: what has not changed is not sent again, but for the time.
export async function operations(key, known, signal) {
  const headers = { authorization: `Bearer ${key}` };
  if (known?.etag) headers["if-none-match"] = known.etag;
  const response = await ask("v1/operations", { headers, signal, cache: "no-store" });
  if (response.status === 304) {
    return { ...known, overview: { ...known.overview, now: Number(response.headers.get("x-llmop-now")) } };
  }
  return { etag: response.headers.get("etag"), overview: await response.json() };
}

async function get(path, key, signal) {
  const response = await ask(path, { headers: { authorization: `Bearer ${key}` }, signal, cache: "no-store" });
  return response.json();
}

// Yields {comment} while the request waits and {chunk} for each piece of the answer. Throws Failure; AbortError when stopped.
export async function* chat(key, body, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", "x-llmop-progress": "1" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  // Not through a TextDecoderStream: one that fails forgets what has not been read from it yet.
  const pieces = response.body.getReader();
  const decoder = new TextDecoder();
  const events = new EventReader();
  let finished = false; // an engine may leave out the last word
  try {
    for (;;) {
      const { done, value } = await read(pieces);
      if (done) break;
      for (const event of events.push(decoder.decode(value, { stream: true }))) {
        if (event.comment !== undefined) {
          yield event;
        } else if (event.data.trim() === "[DONE]") {
          return;
        } else {
          const chunk = parse(event.data);
          if (chunk.error) throw failureIn(chunk, {});
          finished ||= Boolean(chunk.choices?.[0]?.finish_reason);
          yield { chunk };
        }
      }
    }
  } finally {
    pieces.cancel().catch(() => {});
  }
  if (!finished) throw new Failure("The answer ended before it was complete.", { code: "stream_broken" });
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(address(path), { ...options, credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The gateway does not answer. Is the network there?");
  }
  if (response.ok || response.status === 304) return response;
  const wait = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  const facts = { status: response.status, retryAfter: Number.isNaN(wait) ? null : wait };
  const text = await response.text();
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    value = { error: { message: text.slice(0, 500) } };
  }
  throw failureIn(value, facts);
}

async function read(pieces) {
  try {
    return await pieces.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The connection broke off in the middle of the answer.", { code: "stream_broken" });
  }
}

function parse(data) {
  let value;
  try {
    value = JSON.parse(data);
  } catch {
    value = null;
  }
  if (value === null || typeof value !== "object") throw new Failure(`This is no part of an answer: ${data.slice(0, 200)}`);
  return value;
}

// OpenAI's form of errors, or TGI's, or whatever came.
function failureIn(value, facts) {
  const error = value?.error;
  const message = typeof error === "string" ? error : error?.message;
  return new Failure(String(message ?? `status ${facts.status}`), {
    ...facts,
    code: typeof error?.code === "string" ? error.code : "",
    tribunal: value?.llmop?.tribunal ?? null,
  });
}
