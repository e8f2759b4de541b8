// The page: the door with the key, and the room behind it.

import * as api from "./api.js";
import { Chat } from "./chat.js";
import * as conversations from "./conversation.js";
import { announce, byId } from "./dom.js";
import { Models } from "./models.js";
import * as store from "./store.js";
import { failureOf, stateOf } from "./words.js";

const TALLEST = 240; // pixels of the question's field
const wide = matchMedia("(min-width: 48rem)");
let models = null;
let chat = null;

function showDoor(problem = "") {
  leave();
  byId("app").hidden = true;
  byId("door").hidden = false;
  byId("door-problem").textContent = problem;
  byId("key").focus();
}

function leave() {
  chat?.stop();
  models?.end();
  models = chat = null;
  for (const id of ["log", "chats"]) byId(id).replaceChildren();
  document.title = "llmop chat";
}

async function signIn(event) {
  event.preventDefault();
  const key = byId("key").value.trim();
  const problem = byId("door-problem");
  problem.textContent = "";
  // A header takes these characters alone.
  if (!/^[!-~]+$/.test(key)) {
    problem.textContent = "A key has no spaces and no characters beyond ASCII.";
    return;
  }
  try {
    const listed = await api.listModels(key);
    store.signIn(key, byId("remember").checked);
    byId("key").value = "";
    enter(listed);
  } catch (error) {
    problem.textContent = error.status === 401 ? "This key is not known here, or no longer valid." : failureOf(error).detail;
    byId("key").select();
  }
}

function enter(listed = null) {
  leave();
  byId("door").hidden = true;
  byId("app").hidden = false;
  const kept = store.settings();
  byId("system").value = kept.system ?? "";
  byId("temperature").value = kept.temperature ?? "";
  byId("max-tokens").value = kept.maxTokens ?? "";
  chat = new Chat({ ask, refused, changed: showChat });
  models = new Models({
    ask: (signal) => api.listModels(store.key(), signal),
    failed,
    changed: showModel,
    isAsked: () => Boolean(chat?.isRunning),
    chosen: kept.model ?? "",
  });
  models.refresh(listed);
  showChat();
  byId("question").focus();
}

// What a request is made of.
function ask() {
  const number = (id) => (byId(id).value === "" ? Number.NaN : Number(byId(id).value));
  const model = models?.chosen ?? "";
  return {
    key: store.key(),
    model,
    kind: models?.known.get(model)?.kind,
    system: byId("system").value.trim(),
    temperature: number("temperature"),
    maxTokens: number("max-tokens"),
  };
}

// Chats stay for whoever signs in here with the next key.
function refused() {
  showDoor("The key is no longer valid. Sign in again.");
}

// Whether to look at the models again.
function failed(error) {
  if (error.status === 401) {
    refused();
    return false;
  }
  byId("models-note").textContent = failureOf(error).detail;
  return true;
}

function showModel() {
  const facts = models?.known.get(models.chosen);
  byId("bar-model").textContent = models?.chosen ?? "";
  byId("bar-state").textContent = facts ? stateOf(facts) : "";
  byId("question").placeholder = models?.chosen ? `Ask ${models.chosen}` : "Write a message";
  keepSettings();
  showEmpty();
}

function showChat() {
  if (!chat) return;
  byId("send").hidden = chat.isRunning;
  byId("stop").hidden = !chat.isRunning;
  const title = conversations.titleOf(chat.conversation);
  byId("chat-title").textContent = title;
  document.title = `${title} – llmop chat`;
  byId("chats").replaceChildren(...chat.listed(open, forget));
  showEmpty();
}

function showEmpty() {
  const facts = models?.known.get(models.chosen);
  const isEmpty = chat && chat.conversation.messages.length === 0;
  byId("log").classList.toggle("empty", Boolean(isEmpty));
  byId("log").dataset.greeting = isEmpty && facts ? `Ask ${models.chosen} something\n${stateOf(facts)}` : "";
}

function open(conversation) {
  chat.open(conversation);
  if (conversation.model) models.choose(conversation.model);
  closeSide();
  byId("question").focus();
}

function forget(conversation) {
  store.forget(conversation.id);
  if (conversation.id === chat.conversation.id) chat.open(conversations.begin());
  else showChat();
  announce("Deleted.");
  byId("new-chat").focus();
}

function begin() {
  chat.open(conversations.begin());
  closeSide();
  byId("question").focus();
}

function send(event) {
  event?.preventDefault();
  const question = byId("question");
  if (!byId("ask").reportValidity()) {
    byId("settings").open = true;
    return;
  }
  if (!chat.send(question.value)) return;
  if (models.known.get(models.chosen)?.state !== "ready") models.refresh();
  question.value = "";
  grow();
  question.focus();
  showChat();
}

function stop() {
  chat.stop();
  showChat();
  byId("question").focus();
}

function grow() {
  const question = byId("question");
  question.style.height = "auto";
  question.style.height = `${Math.min(TALLEST, question.scrollHeight + 2)}px`;
}

function keepSettings() {
  const { model, system, temperature, maxTokens } = ask();
  const or = (number) => (Number.isNaN(number) ? undefined : number);
  store.keepSettings({ model, system, temperature: or(temperature), maxTokens: or(maxTokens) });
}

// On narrow screens the side lies over the room.
function openSide() {
  byId("app").classList.add("side-open");
  byId("open-side").setAttribute("aria-expanded", "true");
  byId("room").inert = true;
  (document.querySelector("#models-list input:checked") ?? byId("new-chat")).focus();
}

function closeSide() {
  if (byId("open-side").getAttribute("aria-expanded") !== "true") return;
  byId("app").classList.remove("side-open");
  byId("open-side").setAttribute("aria-expanded", "false");
  byId("room").inert = false;
  byId("open-side").focus();
}

function pressed(event) {
  if (event.key !== "Escape" || event.isComposing) return;
  if (byId("open-side").getAttribute("aria-expanded") === "true") closeSide();
  else if (chat?.isRunning) stop();
}

function typed(event) {
  // Enter that ends the choice of a Chinese or Japanese word sends nothing.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
}

byId("sign-in").addEventListener("submit", signIn);
byId("ask").addEventListener("submit", send);
byId("stop").addEventListener("click", stop);
byId("new-chat").addEventListener("click", begin);
byId("bar-new").addEventListener("click", begin);
byId("sign-out").addEventListener("click", () => {
  leave();
  store.signOut();
  showDoor();
});
byId("question").addEventListener("keydown", typed);
byId("question").addEventListener("input", grow);
for (const id of ["system", "temperature", "max-tokens"]) byId(id).addEventListener("change", keepSettings);
byId("open-side").addEventListener("click", () =>
  byId("open-side").getAttribute("aria-expanded") === "true" ? closeSide() : openSide(),
);
document.addEventListener("keydown", pressed);
window.addEventListener("pagehide", () => chat?.stop()); // what has come is kept
wide.addEventListener("change", closeSide);

if (store.key()) enter();
else showDoor();
