// The files that a user drops, pastes or chooses, including the contents of folders.

const CLUTTER = /^(\.|(thumbs\.db|desktop\.ini)$)/i; // what systems leave in folders, and hidden files

const places = new WeakMap(); // dropped file -> its folder

// The place of a file in the dropped or chosen folder; "" if there was none.
export const folderOf = (file) =>
  places.get(file) ?? (file.webkitRelativePath ?? "").split("/").slice(0, -1).join("/");

// {wanted, others}: what is to be sent, and the number of files in folders that have none of these extensions; the
// server would refuse them one by one. Files that were picked singly are all sent, so that it can say what is wrong.
export function sorted(files, extensions) {
  const inFolders = (file) => folderOf(file) !== "";
  const isClutter = (file) => [...folderOf(file).split("/"), file.name].some((part) => CLUTTER.test(part));
  const isKnown = (file) => extensions.some((extension) => file.name.toLowerCase().endsWith(extension));
  const seen = files.filter((file) => !inFolders(file) || !isClutter(file));
  const wanted = seen.filter((file) => !inFolders(file) || isKnown(file));
  return { wanted, others: seen.length - wanted.length };
}

// The dropped files, with those in folders.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  for (const entry of entries) files.push(...await filesOf(entry));
  return files;
}

async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    places.set(file, entry.fullPath.split("/").slice(1, -1).join("/"));
    return [file];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) { // each call returns at most a hundred
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  found.sort((one, other) => one.name.localeCompare(other.name));
  return (await Promise.all(found.map(filesOf))).flat();
}
