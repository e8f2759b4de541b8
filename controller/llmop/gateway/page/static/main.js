// The page: the door with the key, and the room behind it.

import * as api from "./api.js";
import { Chat } from "./chat.js";
import * as conversations from "./conversation.js";
import { announce, byId } from "./dom.js";
import { Models } from "./models.js";
import { Operations } from "./operations.js";
import * as store from "./store.js";
import { failureOf, stateOf } from "./words.js";

const TALLEST = 240; // pixels of the question's field
const wide = matchMedia("(min-width: 48rem)");
let models = null;
let chat = null;
let operations = null;
let view = "room"; // or "operations"

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
  operations?.end();
  reveal("room");
  models = chat = operations = null;
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
  operations = new Operations({ ask: (known, signal) => api.operations(store.key(), known, signal), failed: notShown });
  models.refresh(listed).then(() => {
    if (kept.view === "operations" && models?.mayOperate) show("operations");
  });
  showChat();
  byId("question").focus();
}

// One of the two pages.
function show(name) {
  reveal(name);
  if (name === "room") operations?.close();
  else operations?.open();
  showModel();
  showChat();
}

function reveal(name) {
  view = name;
  for (const [id, button] of [["room", "to-chat"], ["operations", "to-operations"]]) {
    byId(id).hidden = id !== name;
    if (id === name) byId(button).setAttribute("aria-current", "page");
    else byId(button).removeAttribute("aria-current");
  }
  const isChat = name === "room";
  byId("skip").textContent = isChat ? "Skip to the message" : "Skip to operations";
  byId("skip").setAttribute("href", isChat ? "#question" : "#operations-title");
}

function choosePage(name) {
  show(name);
  keepSettings();
  if (!closeSide()) return;
  byId(name === "room" ? "question" : "operations-title").focus();
}

// Whether to look at operations again.
function notShown(error) {
  if (error.status === 403) models?.refresh(); // which says that the right is gone
  return error.status !== 403 && failed(error);
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
  byId("pages").hidden = !models?.mayOperate;
  if (view === "operations" && models && !models.mayOperate) show("room");
  byId("bar-model").textContent = view === "operations" ? "Operations" : (models?.chosen ?? "");
  byId("bar-state").textContent = facts && view === "room" ? stateOf(facts) : "";
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
  document.title = view === "operations" ? "Operations – llmop" : `${title} – llmop chat`;
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
  toQuestion();
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
  toQuestion();
}

function toQuestion() {
  closeSide();
  show("room");
  keepSettings();
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
  store.keepSettings({ model, system, temperature: or(temperature), maxTokens: or(maxTokens), view });
}

// On narrow screens the side lies over the room.
function openSide() {
  byId("app").classList.add("side-open");
  byId("open-side").setAttribute("aria-expanded", "true");
  for (const id of ["room", "operations"]) byId(id).inert = true;
  (document.querySelector("#models-list input:checked") ?? byId("new-chat")).focus();
}

// Says whether it was open.
function closeSide() {
  if (byId("open-side").getAttribute("aria-expanded") !== "true") return false;
  byId("app").classList.remove("side-open");
  byId("open-side").setAttribute("aria-expanded", "false");
  for (const id of ["room", "operations"]) byId(id).inert = false;
  byId("open-side").focus();
  return true;
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
byId("to-chat").addEventListener("click", () => choosePage("room"));
byId("to-operations").addEventListener("click", () => choosePage("operations"));
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
