// Keeps every file of this page, and answers with it from then on, also without a network. The large files are kept
// when the page fetches them, which shows how far it is; the others are kept first.
const KEPT = "captioner-{{ version }}";
const FIRST = {{ first }};

addEventListener("install", (event) => {
  skipWaiting();
  event.waitUntil(caches.open(KEPT).then((cache) =>
    cache.addAll(FIRST.map((file) => new Request(file, { cache: "reload" })))));
});

addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith("captioner-") && name !== KEPT) await caches.delete(name);
  await clients.claim();
})()));

addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== location.origin) return;
  event.respondWith((async () => {
    const cache = await caches.open(KEPT), known = await cache.match(event.request, { ignoreSearch: true });
    if (known) return known;
    const answer = await fetch(event.request.url, { cache: "no-cache" }); // not an older page's file
    if (answer.ok) await cache.put(event.request, answer.clone());
    return answer;
  })());
});
