// Conversations as values: what is kept, and what is sent of them.

// A message of the assistant is {role, model, content, thought, status: "running" | "done" | "stopped" | "failed", failure, tribunal, sources, timing}.
export const begin = () => ({
  id: crypto.getRandomValues(new Uint32Array(2)).join(""),
  title: "",
  updated: Date.now(),
  model: "",
  messages: [],
});

export const titleOf = (conversation) => conversation.title || "New chat";

// What a request says: the turns that were answered, and the question. Some models refuse two turns of one side in a row.
export function request(conversation, { model, system, temperature, maxTokens }) {
  const turns = conversation.messages;
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const [index, turn] of turns.entries()) {
    if (turn.role !== "user") continue;
    const answer = turns[index + 1];
    const isQuestion = !turns.slice(index + 1).some((later) => later.role === "user");
    if (isQuestion || answer?.content) messages.push({ role: "user", content: turn.content });
    if (!isQuestion && answer?.content) messages.push({ role: "assistant", content: answer.content });
  }
  const body = { model, messages };
  if (Number.isFinite(temperature)) body.temperature = temperature;
  if (Number.isInteger(maxTokens)) body.max_tokens = maxTokens;
  return body;
}

// Takes over what a piece of an answer says. Of an engine, which may say anything, only the words count.
export function take(message, chunk, kind) {
  const told = (kind !== "deployment" && chunk.llmop) || {};
  if (told.tribunal) takeTribunal(message, told.tribunal);
  if (told.assistant && Array.isArray(told.assistant.citations)) message.sources = told.assistant;
  if (chunk.usage) message.timing.tokens = chunk.usage.completion_tokens;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const { content, reasoning_content: reasoned, reasoning } = choice.delta ?? {};
  if (typeof content === "string") message.content += content;
  const thought = reasoned ?? reasoning;
  if (typeof thought === "string") message.thought = (message.thought ?? "") + thought;
  if (choice.finish_reason === "length") message.isCut = true;
}

function takeTribunal(message, told) {
  const tribunal = (message.tribunal ??= { steps: [], transcript: null });
  if (told.event === "step") {
    const members = (told.members ?? []).map((member) => ({ member, outcome: null, seconds: null, model: "" }));
    tribunal.steps.push({ step: told.step, round: told.round, members });
  } else if (told.event === "call") {
    const step = tribunal.steps.findLast((each) => each.step === told.step && each.round === told.round);
    const member = step?.members.find((each) => each.member === told.member && each.outcome === null);
    if (member) Object.assign(member, { outcome: told.outcome, seconds: told.seconds, model: told.model });
  } else if (told.outcome) {
    tribunal.transcript = told;
  }
}
