const box = document.querySelector('.search input'), list = document.querySelector('.search ol');
let at = 0;
function rank(entry, words) {
  let score = 0;
  for (const w of words) {
    const id = entry.id.toLowerCase(), name = entry.name.toLowerCase();
    const s = id === w ? 100 : id.startsWith(w) ? 40 : name.startsWith(w) ? 20 : name.includes(w) ? 10 :
  entry.text.includes(w) ? 1 : 0;
    if (!s) return 0;
    score += s;
  }
  return score;
}
function show() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = words.length ? INDEX.map(e => [rank(e, words), e]).filter(p => p[0]).sort((a, b) => b[0] - a[0]).slice(0, 14)
  : [];
  at = 0;
  list.replaceChildren(...matches.map(([, e], i) => {
    const item = document.createElement('li'), a = document.createElement('a');
    a.href = e.url;
    for (const [tag, text] of [['b', e.id], ['span', e.name], ['small', e.code]]) {
      const part = document.createElement(tag);
      part.textContent = text;
      a.append(part);
    }
    a.setAttribute('aria-selected', String(i === 0));
    a.addEventListener('click', () => { list.replaceChildren(); box.blur(); });
    item.append(a);
    return item;
  }));
}
box.addEventListener('input', show);
box.addEventListener('focus', show);
box.addEventListener('keydown', event => {
  const links = [...list.querySelectorAll('a')];
  if (event.key === 'Escape') { box.value = ''; show(); box.blur(); }
  if (event.key === 'Enter' && links[at]) links[at].click();
  if (links.length && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
    event.preventDefault();
    at = (at + (event.key === 'ArrowDown' ? 1 : links.length - 1)) % links.length;
    links.forEach((a, i) => a.setAttribute('aria-selected', String(i === at)));
    links[at].scrollIntoView({ block: 'nearest' });
  }
});
document.addEventListener('click', event => { if (!event.target.closest('.search')) list.replaceChildren(); });
document.addEventListener('keydown', event => {
  if (event.key === '/' && document.activeElement !== box) { event.preventDefault(); box.focus(); }
});
function follow() {  // index.html#D.7 leads to the entry, wherever it is; a link into a closed <details> opens it
  const id = decodeURIComponent(location.hash.slice(1)), entry = INDEX.find(e => e.id === id);
  const target = document.getElementById(id);
  if (!target && entry) location.replace(entry.url);
  if (target && target.tagName === 'DETAILS') target.open = true;
}
addEventListener('hashchange', follow);
follow();
const narrow = matchMedia('(max-width: 40rem)'), contents = document.querySelector('.contents');
if (contents && narrow.matches) contents.open = false;  // a phone begins with the first equation
const menu = document.querySelector('.menu');
document.addEventListener('click', event => { if (!event.target.closest('.menu')) menu.open = false; });
menu.addEventListener('keydown', event => { if (event.key === 'Escape') { menu.open = false; menu.firstElementChild.focus(); } });
