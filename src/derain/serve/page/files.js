// The files that a user drops, pastes or chooses, including the contents of folders.

const KNOWN = /\.(png|jpe?g|webp|tiff?|bmp|avif|gif|mp4|m4v|mov|mkv|webm|avi)$/i;

// Whether a file of a folder looks like a picture or clip; the server would refuse the others one by one.
export const isKnown = (file) => /^(image|video)\//.test(file.type) || KNOWN.test(file.name);

const places = new WeakMap(); // dropped file -> its folder

// The place of a file in the dropped or chosen folder; "" if there was none.
export const folderOf = (file) =>
  places.get(file) ?? file.webkitRelativePath.split("/").slice(0, -1).join("/");

// {files, others}: the dropped files, with pictures and clips of folders, and the number of other files in folders.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return { files: [...transfer.files], others: 0 };
  const files = [];
  let others = 0;
  for (const entry of entries) {
    for (const file of await filesOf(entry)) {
      if (entry.isFile || isKnown(file)) files.push(file);
      else others += 1;
    }
  }
  return { files, others };
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
