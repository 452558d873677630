"""The style sheet of the book, added to that of page.py, and its search: plain JavaScript over an index inside the page."""

CSS = """
main { max-width: 92rem; }
main > p, main > ul:not(.toc), .intro > p, .intro > ul, .intro > h2, .intro > h3 { max-width: 46rem; }
math { font-family: "STIX Two Math", "Latin Modern Math", "Cambria Math", "Noto Sans Math", "DejaVu Math TeX Gyre", math; }
nav.top { position: sticky; top: 0; z-index: 2; background: var(--paper); border-bottom: 1px solid var(--line); }
nav.top > div { max-width: 92rem; margin: 0 auto; padding: .45rem 1.25rem; display: flex; flex-wrap: wrap; gap: .35rem 1rem;
  align-items: center; }
nav.top a { text-decoration: none; }
nav.top .home { font-weight: 650; color: var(--ink); }
nav.top ul { list-style: none; display: flex; gap: .1rem; margin: 0; padding: 0; overflow-x: auto; max-width: 100%; }
nav.top ul a { display: block; padding: .15rem .55rem; border-radius: 6px; color: var(--muted); }
nav.top ul a:hover { background: var(--code); color: var(--ink); }
nav.top ul a[aria-current] { background: var(--code); color: var(--ink); font-weight: 650; }
.search { position: relative; margin-left: auto; flex: 0 1 19rem; }
.search input { width: 100%; font: inherit; font-size: 1rem; padding: .28rem .7rem; border: 1px solid var(--line);
  border-radius: 8px;
  background: var(--card); color: var(--ink); }
.search ol { position: absolute; right: 0; width: min(34rem, calc(100vw - 2.5rem)); max-height: 70vh; overflow-y: auto;
  margin: .3rem 0 0;
  padding: .3rem; list-style: none; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  box-shadow: 0 10px 30px rgb(0 0 0 / .22); }
.search ol:empty { display: none; }
.search ol a { display: flex; gap: .7rem; padding: .3rem .6rem; border-radius: 6px; color: var(--ink); align-items: baseline; }
.search ol a[aria-selected=true], .search ol a:hover { background: var(--code); }
.search ol b { color: var(--c0); min-width: 2.9rem; } .search ol small { color: var(--muted); margin-left: auto; }
.toc { list-style: none; padding: 0; margin: 1.2rem 0 0; columns: 17rem; column-gap: 2rem; }
.toc li { break-inside: avoid; padding: .1rem 0; } .toc a { text-decoration: none; display: flex; gap: .6rem; color:
  var(--ink); }
.toc b, .id { color: var(--c0); font-variant-numeric: tabular-nums; } .toc b { min-width: 2.7rem; font-weight: 600; }
.toc a:hover span { text-decoration: underline; }
html { scroll-padding-top: 4.5rem; }
article { margin: 2.4rem 0 0; padding: 1.5rem 0 0; border-top: 1px solid var(--line); }
article > header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem .8rem; margin-bottom: .7rem; }
article h2 { margin: 0; } article h2 a { text-decoration: none; } article h2 .id { margin-right: .5rem; }
article:target h2 { box-shadow: 0 .18em var(--c1); }
.chip { font-size: .84rem; color: var(--muted); white-space: nowrap; font-variant-numeric: tabular-nums; }
.chip.good { color: var(--c2); } .chip.bad { color: var(--c4); font-weight: 650; }
.steps { margin-left: auto; display: flex; gap: .9rem; font-size: .88rem; } .steps a { text-decoration: none; }
.pair { display: grid; gap: 1rem 2.2rem; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 68rem) { .pair { grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); } }
.equation { overflow-x: auto; overflow-y: hidden; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1rem .9rem; margin: 0 0 .7rem; font-size: 1.12rem;
  display: flex; flex-wrap: wrap; justify-content: safe center; align-items: center; gap: .7rem 1.8em; }
.equation math { min-width: max-content; }
@media (max-width: 34rem) { .equation { font-size: 1rem; padding: .8rem .6rem; } }
.letters { white-space: pre-wrap; font-size: .9rem; color: var(--muted); margin: 0 0 .7rem; }
sub { line-height: 0; }
.facts { font-size: .92rem; color: var(--muted); margin: .6rem 0; padding: 0; list-style: none; }
.facts li { margin: .25rem 0; } .facts b { font-weight: 600; color: var(--ink); }
.source { border: 1px solid var(--line); border-radius: 10px; background: var(--card); margin: 0 0 .8rem;
  overflow: hidden; }
details.source { margin: 0 0 .4rem; }
.source > header, .source > summary { font-size: .87rem; padding: .4rem .9rem; color: var(--muted); background: var(--code); }
.source > header { border-bottom: 1px solid var(--line); } .source[open] > summary { border-bottom: 1px solid var(--line); }
.source > summary:hover { color: var(--ink); }
.source pre { margin: 0; background: none; border-radius: 0; padding: .55rem 0; line-height: 1.5; font-size: .86rem;
  tab-size: 4; }
.source code { display: block; min-width: max-content; font-size: 1em; }
.source pre span.l { display: block; padding: 0 1rem 0 0; }
.source pre span.l::before { content: attr(data-n); display: inline-block; width: 3.2rem; padding-right: .9rem; text-align:
  right;
  color: var(--muted); opacity: .65; user-select: none; }
.source pre span.hit { background: color-mix(in srgb, var(--c1) 14%, transparent); box-shadow: inset 3px 0 var(--c1); }
.source pre .gap { display: block; color: var(--muted); padding-left: 2.3rem; user-select: none; }
.source details { border-top: 1px solid var(--line); } .source details summary { padding: .35rem .9rem; font-size: .87rem;
  color: var(--muted); }
.source a { color: inherit; text-decoration-color: var(--c0); }
.k { color: var(--c3); } .s { color: var(--c2); } .c { color: var(--muted); } .n { color: var(--c1); } .f { color: var(--c0);
  font-weight: 600; }
.d { color: var(--c5); } .hit .c { color: var(--ink); }
p, main ul, main ol { overflow-x: auto; overflow-y: hidden; }
.intro tbody th { white-space: nowrap; }
.tests > h3 { margin: .9rem 0 .5rem; }
td a, th a { text-decoration: none; } td a:hover, th a:hover { text-decoration: underline; }
@media (max-width: 40rem) { .search { flex-basis: 100%; } .steps { margin-left: 0; } main { padding-top: 1.4rem; }
  nav.top > div { padding-block: .4rem; } html { scroll-padding-top: 7.5rem; } }
@media print { nav.top { display: none; } }
"""

SEARCH = r"""
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
"""
