// What the browser keeps: the key, settings and conversations. In the tab alone, or, if asked to remember, on the device. All access may
// fail (private windows, full disks); the page then works without.

const KEY = "llmop.key";
const SETTINGS = "llmop.settings";
const CONVERSATION = "llmop.chat.";
const MOST_CONVERSATIONS = 50;
const MOST_CHARACTERS = 2_000_000; // browsers give a site some five million

const attempt = (action, otherwise = null) => {
  try {
    return action();
  } catch {
    return otherwise;
  }
};

const isRemembered = () => attempt(() => localStorage.getItem(KEY) !== null, false);
const shelf = () => (isRemembered() ? localStorage : sessionStorage);

let held = null; // where nothing can be kept

export const key = () => attempt(() => localStorage.getItem(KEY) ?? sessionStorage.getItem(KEY)) ?? held;

// What an earlier key left behind in this browser goes where this key goes: after a key has expired its owner signs in with the next one.
export function signIn(value, remember) {
  held = value;
  attempt(() => {
    const [place, other] = remember ? [localStorage, sessionStorage] : [sessionStorage, localStorage];
    place.setItem(KEY, value);
    for (const name of names(other, "llmop.")) {
      if (name !== KEY) attempt(() => place.setItem(name, other.getItem(name)));
      other.removeItem(name);
    }
  });
}

// The key and every conversation leave this browser.
export function signOut() {
  held = null;
  for (const each of [() => sessionStorage, () => localStorage]) {
    attempt(() => {
      for (const name of names(each(), "llmop.")) each().removeItem(name);
    });
  }
}

export const settings = () => attempt(() => JSON.parse(shelf().getItem(SETTINGS)), null) ?? {};

export function keepSettings(value) {
  attempt(() => shelf().setItem(SETTINGS, JSON.stringify(value)));
}

// Newest first.
export function conversations() {
  const found = attempt(() => names(shelf(), CONVERSATION).map((name) => attempt(() => JSON.parse(shelf().getItem(name)))), []);
  return found.filter((each) => each && Array.isArray(each.messages)).sort((one, other) => other.updated - one.updated);
}

// False if it is not kept: too long, or no room. The oldest ones go when there are too many.
export function keep(conversation) {
  const text = JSON.stringify(conversation);
  if (text.length > MOST_CHARACTERS / 2) {
    forget(conversation.id);
    return false;
  }
  return attempt(() => {
    const others = conversations().filter((each) => each.id !== conversation.id);
    const sizes = others.map((each) => JSON.stringify(each).length);
    let total = sizes.reduce((sum, size) => sum + size, text.length);
    while (others.length && (others.length >= MOST_CONVERSATIONS || total > MOST_CHARACTERS)) {
      total -= sizes.pop();
      forget(others.pop().id);
    }
    shelf().setItem(CONVERSATION + conversation.id, text);
    return true;
  }, false);
}

export function forget(id) {
  attempt(() => shelf().removeItem(CONVERSATION + id));
}

function names(storage, prefix) {
  return Array.from({ length: storage.length }, (_, index) => storage.key(index)).filter((name) => name.startsWith(prefix));
}
