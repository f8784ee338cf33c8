// Captions a photo in this tab: prepares it as Python does, runs the two graphs, searches with beams, shows the words.
// The four parts below follow helpers/export: pictures.py, search.py, writer.py, and the page itself.
import * as ort from "./ort/ort.wasm.min.mjs";

const BEAMS = 3; // as `clipxgpt predict --beams 3`
const MOST_PIXELS = 89478485, MOST_ELONGATED = 50; // as data/images.py
const STRIP = 256; // rows of a photo that are read at a time
const WORD_PAUSE = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 45; // milliseconds between words

// ---------------------------------------------------------------- pictures

// Pillow's resampling: a filter as wide as what one new pixel covers, in integers, across and then down.
const FILTERS = {
  bilinear: [1, (x) => Math.max(1 - Math.abs(x), 0)],
  bicubic: [2, (x) => {
    x = Math.abs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  }],
};

function weights(from, to, [reach, filter]) {
  const scale = from / to, wide = Math.max(scale, 1);
  return Array.from({ length: to }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach * wide + 0.5));
    const last = Math.min(from, Math.trunc(center + reach * wide + 0.5));
    const raw = Array.from({ length: last - first }, (_, i) => filter((i + first - center + 0.5) / wide));
    const sum = raw.reduce((a, b) => a + b);
    return { first, taps: raw.map((value) => Math.trunc((value / sum) * 2 ** 22 + (value < 0 ? -0.5 : 0.5))) };
  });
}

// Return {width, height, data: RGB bytes} of an image. An image: width, height, and rows(y, n), their bytes.
export function resize(image, width, height, filter) {
  const across = weights(image.width, width, FILTERS[filter]), down = weights(image.height, height, FILTERS[filter]);
  const narrow = new Uint8ClampedArray(width * image.height * 3), data = new Uint8ClampedArray(width * height * 3);
  for (let top = 0; top < image.height; top += STRIP) {
    const { bytes, step } = image.rows(top, Math.min(STRIP, image.height - top));
    for (let row = 0; row < Math.min(STRIP, image.height - top); row++)
      for (let x = 0; x < width; x++)
        for (let channel = 0; channel < 3; channel++) {
          const { first, taps } = across[x];
          let sum = 2 ** 21, at = (row * image.width + first) * step + channel;
          for (const tap of taps) { sum += bytes[at] * tap; at += step; }
          narrow[((top + row) * width + x) * 3 + channel] = sum >> 22;
        }
  }
  for (let y = 0; y < height; y++)
    for (let at = 0; at < width * 3; at++) {
      let sum = 2 ** 21, from = down[y].first * width * 3 + at;
      for (const tap of down[y].taps) { sum += narrow[from] * tap; from += width * 3; }
      data[y * width * 3 + at] = sum >> 22;
    }
  return plain(width, height, data);
}

const plain = (width, height, data) =>
  ({ width, height, data, rows: (y, n) => ({ bytes: data.subarray(y * width * 3, (y + n) * width * 3), step: 3 }) });

// A photo as a JPEG file shows it: colours at half the resolution, and 8 x 8 cosines rounded to the tables' multiples.
const LUMA = [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22,
  29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120,
  101, 72, 92, 95, 98, 112, 100, 103, 99];
const CHROMA = [17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99,
  99, 99, 99, 99, 99].concat(Array(32).fill(99));
// libjpeg's integer cosines by frequency, for the first four pixels of eight; the others mirror them.
const COSINES = [[8192, 8192, 8192, 8192], [11363, 9633, 6437, 2260], [10703, 4433, -4433, -10703],
  [9633, -2259, -11362, -6436], [8192, -8192, -8192, 8192], [6437, -11362, 2261, 9633], [4433, -10704, 10704, -4433],
  [2260, -6436, 9633, -11363]].map((row, k) => row.concat([...row].reverse().map((each) => (k % 2 ? -each : each))));
const PIXELS = COSINES[0].map((_, n) => COSINES.map((row) => row[n])); // the way back

// Multiply the eight lines of a block by a table of cosines, and divide by 2 ** shift.
function turn(block, table, along, shift) {
  for (let line = 0; line < 8; line++) {
    const first = line * (9 - along), old = Array.from({ length: 8 }, (_, n) => block[first + n * along]);
    for (let k = 0; k < 8; k++)
      block[first + k * along] = Math.floor(old.reduce((sum, each, n) => sum + each * table[k][n], 0) / 2 ** shift + 0.5);
  }
}

// Return the plane [side, side], a multiple of 8, after its cosines were rounded.
function rounded(plane, side, table) {
  const out = new Uint8ClampedArray(side * side), block = new Float64Array(64);
  for (let corner = 0; corner < side * side; corner += corner % side === side - 8 ? 7 * side + 8 : 8) {
    const at = (i) => corner + (i >> 3) * side + (i & 7);
    for (let i = 0; i < 64; i++) block[i] = plane[at(i)] - 128;
    turn(block, COSINES, 1, 11), turn(block, COSINES, 8, 15); // eight times the cosines
    for (let i = 0; i < 64; i++)
      block[i] = Math.sign(block[i]) * Math.floor(Math.abs(block[i]) / (8 * table[i]) + 0.5) * table[i];
    turn(block, PIXELS, 8, 11), turn(block, PIXELS, 1, 18);
    for (let i = 0; i < 64; i++) out[at(i)] = block[i] + 128;
  }
  return out;
}

export function asJpeg({ width: side, data }, quality) {
  const full = Math.ceil(side / 16) * 16, half = full / 2, percent = quality < 50 ? 5000 / quality : 200 - 2 * quality;
  const [luma, chroma] = [LUMA, CHROMA].map((table) =>
    table.map((value) => Math.min(255, Math.max(1, Math.floor((value * percent + 50) / 100)))));
  const planes = [0, 1, 2].map(() => new Uint8ClampedArray(full * full));
  for (let y = 0; y < full; y++)
    for (let x = 0; x < full; x++) {
      const at = (Math.min(y, side - 1) * side + Math.min(x, side - 1)) * 3;
      const [r, g, b] = data.subarray(at, at + 3);
      planes[0][y * full + x] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16; // in 65536ths, as in libjpeg
      planes[1][y * full + x] = (32768 * b - 11059 * r - 21709 * g + 128 * 65536 + 32767) >> 16;
      planes[2][y * full + x] = (32768 * r - 27439 * g - 5329 * b + 128 * 65536 + 32767) >> 16;
    }
  const light = rounded(planes[0], full, luma);
  const [blue, red] = planes.slice(1).map((plane) => {
    const small = new Uint8ClampedArray(half * half);
    for (let y = 0; y < half; y++)
      for (let x = 0; x < half; x++) {
        const at = 2 * y * full + 2 * x;
        small[y * half + x] = (plane[at] + plane[at + 1] + plane[at + full] + plane[at + full + 1] + 1 + (x & 1)) >> 2;
      }
    return rounded(small, half, chroma);
  });
  const inside = (place) => Math.min((side - 1) >> 1, Math.max(0, place));
  const smooth = (plane, y, x) => { // three parts of the nearer colour and one of the next, down and across
    const near = y >> 1, far = inside(y & 1 ? near + 1 : near - 1);
    const column = (place) => 3 * plane[near * half + inside(place)] + plane[far * half + inside(place)];
    return (3 * column(x >> 1) + column(x & 1 ? (x >> 1) + 1 : (x >> 1) - 1) + (x & 1 ? 7 : 8)) >> 4;
  };
  const out = new Uint8ClampedArray(side * side * 3);
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) {
      const l = light[y * full + x], b = smooth(blue, y, x) - 128, r = smooth(red, y, x) - 128, at = (y * side + x) * 3;
      out[at] = l + ((91881 * r + 32768) >> 16);
      out[at + 1] = l + ((-22554 * b - 46802 * r + 32768) >> 16);
      out[at + 2] = l + ((116130 * b + 32768) >> 16);
    }
  return plain(side, side, out);
}

// Return the pixels as the graph takes them: float32 [3, H, W].
export function prepare(image, settings) {
  const { reduce_to: side, shortest_edge: edge, height, width, resample, factor, mean, std } = settings;
  if (side && Math.max(image.width, image.height) > side)
    image = asJpeg(resize(image, side, side, "bicubic"), settings.jpeg_quality);
  const shorter = Math.min(image.width, image.height);
  const cropped = [image.width, image.height].map((each) => Math.trunc((edge * each) / shorter));
  const [across, down] = edge ? cropped : [width, height];
  const { data } = resize(image, across, down, resample);
  const left = (across - width) >> 1, top = (down - height) >> 1, pixels = new Float32Array(3 * height * width);
  for (let channel = 0, at = 0; channel < 3; channel++)
    for (let y = top; y < top + height; y++)
      for (let x = left; x < left + width; x++)
        pixels[at++] = (data[(y * across + x) * 3 + channel] * factor - mean[channel]) / std[channel];
  return pixels;
}

// A decoded photo whose rows are read when they are needed, with white behind what is transparent.
export function readable(bitmap) {
  const size = { width: bitmap.width, height: Math.min(STRIP, bitmap.height) };
  const canvas = Object.assign(document.createElement("canvas"), size);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rows = (y, n) => {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, n);
    context.drawImage(bitmap, 0, -y);
    return { bytes: context.getImageData(0, 0, canvas.width, n).data, step: 4 };
  };
  return { width: bitmap.width, height: bitmap.height, rows };
}

export async function decode(file) {
  if (!file.size) throw new Error("is empty (0 bytes); give a whole picture");
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error("is no picture that this browser can read; give a JPEG, PNG, WebP or GIF of a usual size");
  });
  const { width, height } = bitmap, size = `has ${width} x ${height} pixels`;
  if (width * height > MOST_PIXELS)
    throw new Error(`${size}, but at most ${MOST_PIXELS.toLocaleString("en")} are read; make it smaller`);
  if (Math.max(width, height) > MOST_ELONGATED * Math.min(width, height))
    throw new Error(`${size}, more than ${MOST_ELONGATED} times as long as wide; crop it`);
  return bitmap;
}

// ---------------------------------------------------------------- search and language

// Return the most likely captions, the best first: [{score, tokens}]. onWords hears of the best so far at each step.
async function search(captioner, prefix, onWords) {
  const { endings, longest, length_penalty: penalty } = captioner.settings.writing;
  let running = [{ score: 0, tokens: [] }], finished = [];
  let { scores, past } = await captioner.step(prefix, []);
  while (true) {
    const best = largest(running, scores, (1 + endings.length) * BEAMS), going = [];
    const length = running[0].tokens.length + 1;
    best.forEach(({ score, row, token }, rank) => {
      const tokens = [...running[row].tokens, token];
      if (!endings.includes(token) && length < longest) going.push({ score, tokens, row });
      else if (rank < BEAMS) finished.push({ score: score / length ** penalty, tokens });
    });
    running = going.slice(0, BEAMS);
    finished = finished.sort((a, b) => b.score - a.score).slice(0, BEAMS);
    const hope = running.length ? running[0].score / length ** penalty : -Infinity;
    if (!running.length || (finished.length === BEAMS && hope <= finished[BEAMS - 1].score)) return finished;
    await onWords(running[0].tokens);
    ({ scores, past } = await captioner.step(null, running, past));
  }
}

// Return the `number` likeliest continuations of the running captions, the likeliest first.
function largest(running, scores, number) {
  const size = scores.length / running.length, best = [];
  running.forEach((beam, row) => {
    const mine = scores.subarray(row * size, (row + 1) * size);
    const top = mine.reduce((a, b) => Math.max(a, b));
    const whole = top + Math.log(mine.reduce((sum, each) => sum + Math.exp(each - top), 0));
    for (let token = 0; token < size; token++) {
      const score = beam.score + mine[token] - whole;
      if (best.length === number && score <= best[number - 1].score) continue;
      const place = best.findIndex((each) => each.score < score);
      best.splice(place < 0 ? best.length : place, 0, { score, row, token });
      best.length = Math.min(best.length, number);
    }
  });
  return best;
}

export class Captioner {
  static async load(onProgress) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { mjs: new URL("./ort/ort-wasm-simd-threaded.mjs", import.meta.url).href };
    const files = ["ort/ort-wasm-simd-threaded.wasm.gz", "captioner/captioner.json", "captioner/tokenizer.json",
      "captioner/picture.onnx", "captioner/language.onnx"];
    const sizes = await (await fetch("sizes.json")).json(), total = files.reduce((sum, file) => sum + sizes[file], 0);
    let got = 0;
    const [packed, settings, tokenizer, picture, language] = await Promise.all(files.map(async (file) => {
      const answer = await fetch(file);
      if (!answer.ok) throw new Error(`${file} cannot be fetched (${answer.status})`);
      const counted = answer.body.pipeThrough(new TransformStream({
        transform(part, stream) { stream.enqueue(part); onProgress((got += part.length) / total, total); },
      }));
      return new Uint8Array(await new Response(counted).arrayBuffer());
    }));
    const opened = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    ort.env.wasm.wasmBinary = await new Response(opened).arrayBuffer();
    // Weights of one byte are turned into floats once, as in writer.py.
    const options = { extra: { session: { disable_quant_qdq: "1" } }, executionProviders: ["wasm"] };
    const text = (bytes) => JSON.parse(new TextDecoder().decode(bytes)), captioner = new Captioner();
    captioner.settings = text(settings);
    captioner.decoder = decoderOf(text(tokenizer));
    captioner.picture = await ort.InferenceSession.create(picture, options);
    captioner.language = await ort.InferenceSession.create(language, options);
    return captioner;
  }

  // Caption an image: {captions, strange}. onWords hears the words of the best caption so far.
  async caption(image, onWords = () => {}) {
    const { pictures: { height, width } } = this.settings, pixels = prepare(image, this.settings.pictures);
    const fed = { pixels: new ort.Tensor("float32", pixels, [1, 3, height, width]) };
    const { prefix, strangeness } = await this.picture.run(fed);
    const found = await search(this, prefix, (tokens) => onWords(this.decoder(tokens)));
    return { captions: found.map(({ tokens }) => this.decoder(tokens)), strange: strangeness?.data[0] > 1 };
  }

  // Return the scores [R, V] behind a prefix, or behind the last token of each running caption, and the longer cache.
  async step(prefix, running, past = {}) {
    const { width, layers, heads, head_width: each } = this.settings.writing, rows = prefix ? 1 : running.length;
    const last = BigInt64Array.from(running, ({ tokens }) => BigInt(tokens.at(-1)));
    const fed = {
      vectors: prefix ?? new ort.Tensor("float32", [], [rows, 0, width]),
      tokens: new ort.Tensor("int64", last, [rows, prefix ? 0 : 1]),
    };
    for (const name of Array.from({ length: layers }, (_, layer) => [`key${layer}`, `value${layer}`]).flat()) {
      const before = past[name], seen = before?.dims[2] ?? 0, size = heads * seen * each;
      const kept = new Float32Array(rows * size); // each running caption continues the row that it came from
      if (before) running.forEach(({ row }, i) => kept.set(before.data.subarray(row * size, (row + 1) * size), i * size));
      fed[`past_${name}`] = new ort.Tensor("float32", kept, [rows, heads, seen, each]);
    }
    const { scores, ...longer } = await this.language.run(fed);
    return { scores: scores.data, past: longer };
  }
}

// Return the function that turns tokens of a byte-level tokenizer into text.
function decoderOf({ model, added_tokens: added, decoder }) {
  const shown = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173); // these stand for themselves
  const bytes = new Map();
  for (let byte = 0, hidden = 256; byte < 256; byte++)
    bytes.set(String.fromCharCode(shown(byte) ? byte : hidden++), byte);
  const texts = new Map(Object.entries(model.vocab).map(([text, token]) => [token, text]));
  for (const { id, content, special } of added) texts.set(id, special ? "" : content);
  const replaced = (decoder.decoders ?? []).filter(({ type }) => type === "Replace");
  return (tokens) => {
    const joined = tokens.map((token) => texts.get(token)).join("");
    const text = new TextDecoder().decode(Uint8Array.from(joined, (each) => bytes.get(each)));
    return replaced.reduce((said, { pattern, content }) => said.replaceAll(pattern.String, content), text).trim();
  };
}

// ---------------------------------------------------------------- the page

const part = (id) => document.getElementById(id), pause = (time) => new Promise((done) => setTimeout(done, time));
const item = (text) => Object.assign(document.createElement("li"), { textContent: text });
export let ready; // the captioner
let busy = Promise.resolve(), latest = 0;

function say(text, wrong = false) {
  part("status").textContent = text;
  part("status").classList.toggle("wrong", wrong);
}

// Caption a file or a frame of the camera; a newer one replaces it.
async function show(source, name) {
  const mine = ++latest, current = () => mine === latest;
  say("");
  part("caption").textContent = part("spoken").textContent = "";
  part("result").hidden = part("more").hidden = part("strange").hidden = true;
  part("result").setAttribute("aria-busy", "true");
  await (busy = busy.then(async () => {
    if (!current()) return;
    try {
      const bitmap = source instanceof Blob ? await decode(source) : source;
      const canvas = part("photo"), scale = Math.min(1, 1280 / Math.max(bitmap.width, bitmap.height));
      [canvas.width, canvas.height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
      canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      canvas.setAttribute("aria-label", `Your photo: ${name}`);
      part("result").hidden = false;
      part("result").scrollIntoView({ block: "nearest" });
      say("The captioner is still on its way …");
      const captioner = await ready;
      if (!current()) return;
      say("Looking at the photo …");
      await pause(30); // so that the photo is seen before the work begins
      const { captions, strange } = await captioner.caption(readable(bitmap), async (words) => {
        if (current()) part("caption").textContent = words;
        await pause(WORD_PAUSE);
      });
      if (!current()) return;
      part("caption").textContent = captions[0];
      part("others").replaceChildren(...captions.slice(1).map(item));
      part("more").hidden = captions.length < 2;
      part("strange").hidden = !strange;
      part("caption").scrollIntoView({ block: "nearest" });
      say("");
      part("spoken").textContent = `Caption: ${captions[0]}. ${strange ? part("strange").textContent : ""}`;
    } catch (error) {
      if (current()) say(`${name} ${error.message}`, true);
    }
    part("result").setAttribute("aria-busy", !current());
  }));
}

async function useCamera() {
  const video = part("video"), dialog = part("camera");
  try {
    const wanted = { facingMode: "environment", width: { ideal: 1280 } };
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted });
  } catch (error) {
    return say(`The camera cannot be used (${error.name}): allow it in the browser, or choose a photo.`, true);
  }
  dialog.returnValue = ""; // Escape keeps that of the last time
  dialog.showModal();
  dialog.onclose = async () => {
    const frame = dialog.returnValue === "take" && video.videoWidth ? await createImageBitmap(video) : null;
    video.srcObject.getTracks().forEach((track) => track.stop());
    if (frame) show(frame, "from the camera");
  };
}

// Let the service worker keep what is fetched, so that the page opens without a network from the second time on.
async function keepOffline() {
  if (!navigator.serviceWorker) return;
  const { installing } = await navigator.serviceWorker.register("service-worker.js").catch(() => ({}));
  if (!installing || navigator.serviceWorker.controller) return;
  const ended = () => ["activated", "redundant"].includes(installing.state);
  while (!ended()) await new Promise((done) => installing.addEventListener("statechange", done, { once: true }));
}

function begin() {
  const files = (list) => { if (list.length) show(list[0], list[0].name); };
  part("file").onchange = ({ target }) => { files(target.files); target.value = ""; };
  for (const button of document.querySelectorAll("[data-photo]"))
    button.onclick = async () => show(await (await fetch(button.dataset.photo)).blob(), button.dataset.name);
  part("open-camera").onclick = useCamera;
  part("open-camera").hidden = !navigator.mediaDevices;
  const dragging = (is) => document.body.classList.toggle("dragging", is);
  addEventListener("dragover", (event) => { event.preventDefault(); dragging(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) dragging(false); });
  addEventListener("drop", (event) => { event.preventDefault(); dragging(false); files(event.dataTransfer.files); });
  addEventListener("paste", (event) => files(event.clipboardData.files));
  ready = keepOffline().then(() => Captioner.load((share, total) => {
    part("bar").value = share;
    const megabytes = (total / 1e6).toFixed(0);
    part("loading-text").textContent = `Fetching the captioner, ${megabytes} MB, once: ${Math.floor(100 * share)} %`;
  }));
  ready.then(() => { part("loading").hidden = true; if (!latest) say("Ready."); },
    (error) => say(`The captioner cannot be loaded (${error.message}). Reload the page to try again.`, true));
}

begin();
