"""The report's style sheet: light and dark, wide and narrow, screen and paper.

Nothing on the page moves, so there is no motion to reduce. Every pair of ink and ground
has a contrast of at least 4.5 (WCAG 2.2, 1.4.3), which the tests work out from these
values. What is shown large is the page's `:target`; all else is then invisible, so that
the keyboard cannot reach it. Place in the flow: layer 9, part of `report`.
"""

__all__ = ["STYLE"]

_COLOURS = """
:root { color-scheme: light dark; --ink: #1d1f22; --soft: #565d65; --paper: #ffffff;
  --line: #d9dce0; --edge: #767d85; --band: #f4f5f7; --warn: #fff4d6;
  --warn-line: #b07800; --for: #d5efe3; --against: #fbdccb; --open: #e8eaed;
  --apart: #dbe7f6; --link: #0b559f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a9b1b9;
  --paper: #16181b; --line: #3a3f45; --edge: #8b939b; --band: #1f2226; --warn: #3a2e0c;
  --warn-line: #d9a120; --for: #12452f; --against: #5a2a12; --open: #33383e;
  --apart: #1d3a5c; --link: #8cc1f7; } }
"""

_TEXT = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header, nav, main, footer { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
main { padding-bottom: 2rem; }
main:focus { outline: none; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.6rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
h1, h2, h3, p, li, dd { overflow-wrap: anywhere; }
p, dl { max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: .2rem solid var(--link); outline-offset: .15rem; }
[id] { scroll-margin-top: 1rem; }
.skip { position: absolute; left: 1rem; top: -4rem; padding: .5rem 1rem;
  background: var(--paper); border: 1px solid var(--edge); z-index: 5; }
.skip:focus { top: .5rem; }
.label, .caption, caption, figcaption, .up, footer { color: var(--soft); }
.caption, caption, figcaption, .up, footer { font-size: .86rem; }
.label { margin: 0 0 1.2rem; }
.banner { background: var(--warn); border-left: .35rem solid var(--warn-line);
  padding: .7rem 1rem; margin: 1.2rem 0; }
.banner p { margin: .2rem 0; }
.up { margin: 1.6rem 0 0; }
footer { border-top: 1px solid var(--line); padding-bottom: 2rem; }
footer h2 { border: 0; margin-top: 1rem; font-size: 1.05rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr;
  gap: .25rem 1rem; }
dt { font-weight: 600; overflow-wrap: anywhere; }
dd { margin: 0; }
summary { cursor: pointer; padding: .25rem 0; color: var(--link); }
nav ol { padding-left: 1.4rem; margin: .2rem 0; }
@media (max-width: 30rem) { dl { display: block; } dd { margin: 0 0 .5rem; } }
@media (min-width: 44rem) { @supports selector(::details-content) {
  nav summary { display: none; }
  nav details::details-content { content-visibility: visible; }
  nav ol { display: flex; flex-wrap: wrap; gap: .1rem 2.2rem;
    padding-left: 1.2rem; } } }
@media screen and (min-width: 92rem) { @supports selector(::details-content) {
  body { padding-left: 17rem; }
  nav { position: fixed; left: 0; top: 0; bottom: 0; width: 17rem; margin: 0;
    padding: 1.6rem 1rem; overflow-y: auto; font-size: .92rem;
    border-right: 1px solid var(--line); }
  nav ol { display: block; } nav li { margin: 0 0 .5rem; } .up { display: none; } } }
"""

_VERDICTS = """
.groups { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr));
  gap: .8rem; list-style: none; padding: 0; margin: .6rem 0 1.2rem; }
.groups > li { background: var(--band); padding: .6rem .9rem .8rem; font-size: .9rem;
  border: 1px solid var(--line); border-radius: .3rem; }
.groups p { margin: 0 0 .3rem; font-size: 1rem; }
.groups ul { list-style: none; margin: 0; padding: 0; line-height: 1.4; }
.groups ul li { display: grid; grid-template-columns: minmax(2rem, max-content) 1fr;
  gap: .6rem; margin: .25rem 0; }
.groups a { font-weight: 600; color: var(--ink); }
.count { font-size: 1.7rem; font-weight: 700; line-height: 1.1; margin-right: .2rem; }
.glyph { font-weight: 700; }
.mark { border: 1px solid var(--edge); border-radius: .3rem; padding: 0 .4rem;
  font-size: .8rem; white-space: nowrap; }
.groups > .for, td.for { background: var(--for); }
.groups > .against, td.against { background: var(--against); }
.groups > .open, td.open { background: var(--open); }
.groups > .apart, td.apart { background: var(--apart); }
.verdicts h2 { border: 0; margin-top: 1rem; padding: 0; }
"""

_TABLES = """
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; width: 100%; }
caption { caption-side: top; text-align: left; padding: .4rem 0; }
th, td { padding: .35rem .55rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { background: var(--band); vertical-align: bottom; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.ledger td.verdict { min-width: 17rem; }
.ledger td:nth-child(2):not(.number) { min-width: 11rem; }
tr:target { outline: .2rem solid var(--link); outline-offset: -.1rem; }
@media screen and (max-width: 44rem) {
  .ledger, .ledger tbody, .ledger td, .ledger tbody th { display: block; width: auto; }
  .ledger caption { display: block; } .ledger thead { display: none; }
  .ledger tr { display: flex; flex-wrap: wrap; border: 1px solid var(--line);
    margin: 0 0 .8rem; padding: .2rem 0; }
  .ledger td, .ledger td.number, .ledger tbody th { border: 0; text-align: left;
    white-space: normal; overflow-wrap: anywhere; }
  .ledger td, .ledger tbody th { flex: 0 0 100%; order: 1; }
  .ledger td.number { flex: none; order: 2; padding: .1rem .55rem; }
  .ledger td.verdict, .ledger td:nth-child(2):not(.number) { min-width: 0; }
  .ledger td::before, .ledger tbody th::before { content: attr(data-column) ": ";
    color: var(--soft); font-weight: 400; }
  .ledger td.verdict::before { color: inherit; } }
"""

_PICTURES = """
figure, .gallery { margin: 1.6rem 0; }
figcaption { padding: .4rem 0; max-width: 46rem; }
.pic { display: block; }
.pic img { display: block; height: auto; background: #ffffff; }
.pic img.small { image-rendering: pixelated; }
figure img { max-width: 100%; border: 1px solid var(--line); }
.tools { display: none; }
.gallery { --side: 16rem; }
.gallery h3 { margin-top: 0; }
.choices { display: flex; flex-wrap: wrap; gap: .4rem 1rem; margin: .6rem 0; }
.choices p { margin: 0; flex-basis: 100%; max-width: none; color: var(--soft);
  font-size: .86rem; }
fieldset { border: 1px solid var(--line); border-radius: .3rem; margin: 0; min-width: 0;
  padding: .1rem .8rem .4rem; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
legend { font-size: .86rem; color: var(--soft); padding: 0 .3rem; }
label { display: inline-flex; gap: .4rem; align-items: center; min-height: 1.5rem; }
input { accent-color: var(--link); width: 1.1rem; height: 1.1rem; flex: none; }
.grid { list-style: none; margin: 0; padding: .3rem; }
.column { display: flex; flex-wrap: wrap; gap: .3rem .6rem; padding: .5rem 0;
  border-top: 1px solid var(--line); }
.column .words { flex-basis: 100%; margin: 0; font-size: .86rem; max-width: none; }
.labels { display: none; }
.cell { max-width: 100%; }
.cell img { width: var(--side); max-width: 100%; }
.method { margin: 0; font-size: .8rem; line-height: 1.3; color: var(--soft);
  max-width: var(--side); }
@media screen {
  .gallery:where(:has(.overview:checked)) { --side: 5.9rem; }
  .gallery:where(:has(.overview:checked)) .grid { display: grid; width: max-content;
    grid-auto-flow: column;
    grid-template-rows: repeat(calc(var(--methods) + 1), auto); }
  .gallery:where(:has(.overview:checked)) :where(.column, .labels) { display: grid;
    grid-row: 1 / -1; grid-template-rows: subgrid; align-content: start; gap: 0;
    padding: 0; border: 0; }
  .gallery:where(:has(.overview:checked)) .words { max-width: var(--side);
    padding: 0 .1rem; line-height: 1.3; align-self: end; }
  .gallery:where(:has(.overview:checked)) .cell { padding: .1rem; }
  .gallery:where(:has(.overview:checked)) .method { display: none; }
  .gallery .labels { position: sticky; left: 0; z-index: 1; background: var(--paper);
    padding-right: .4rem; font-size: .86rem; }
  .labels span { align-self: center; max-width: 7rem; line-height: 1.3; } }
@media screen and (max-width: 44rem) { .gallery { --side: 9.5rem; }
  .gallery:where(:has(.overview:checked)) { --side: 6.5rem; }
  .gallery:where(:has(.overview:checked)) .labels { display: none; }
  .gallery:where(:has(.overview:checked)) .method { display: block; } }
"""

#: The picture that is the page's target, alone on the screen or, in a gallery, beside
#: the seen image with the other methods below. The close link covers the view under all
#: pictures but the large one: a click on that one, or beside them, closes it.
_LARGE = """
@media screen {
  html:has(.pic:target) { overflow: hidden; scrollbar-gutter: stable; }
  body:has(.pic:target) { visibility: hidden; }
  .zoom:has(.pic:target) { visibility: visible; position: fixed; inset: 3.4rem 0 0;
    z-index: 9; overflow: auto; margin: 0; padding: .3rem 1rem 1rem; }
  .pic { cursor: zoom-in; }
  .pic:target { scroll-margin: 300vh 1rem 0; }
  .zoom:has(.pic:target) .pic:not(:target) { position: relative; z-index: 1; }
  .pic:target ~ .tools { display: block; margin: 0; }
  .tools a:focus-visible { outline: none; }
  .tools a:focus-visible span { outline: .2rem solid var(--link);
    outline-offset: .1rem; }
  .tools span { position: fixed; top: .6rem; z-index: 2; padding: .25rem .8rem;
    font-size: .95rem; white-space: nowrap; background: var(--paper);
    border: 1px solid var(--edge); border-radius: .3rem; }
  .close span { right: 1rem; } .next span { right: 6.3rem; }
  .previous span { right: 11.2rem; }
  .close::before { content: ""; position: absolute; inset: 0; cursor: zoom-out; }
  figure:has(.pic:target) img { max-width: none; border: 0; width: max(
    min(100vw - 3rem, 2 * var(--natural)), min(75rem, var(--natural))); }
  figure .pic:target { width: max-content; }
  .gallery .grid .zoom.column:has(.pic:target) { display: flex; flex-wrap: wrap;
    align-content: flex-start; justify-content: center; gap: .8rem; }
  .gallery .zoom.column:has(.pic:target)::after { content: ""; flex-basis: 100%;
    order: 2; }
  .gallery .zoom:has(.pic:target) .words { order: 0; max-width: none; font-size: 1.1rem;
    text-align: center; }
  .gallery .zoom:has(.pic:target) .cell { order: 3; padding: 0; --side: 8rem; }
  .gallery .zoom:has(.pic:target) .cell.m0, .gallery .zoom .cell:has(.pic:target) {
    order: 1; --side: min(46vw, 58vh); display: block; }
  .gallery .zoom:has(.pic:target) .method { display: block; text-align: center;
    margin-top: .4rem; }
  .gallery .zoom .cell:has(.pic:target) .method { color: var(--ink);
    font-weight: 600; } }
@media screen and (max-width: 44rem) {
  .gallery .zoom:has(.pic:target) .cell { --side: 6rem; }
  .gallery .zoom:has(.pic:target) .cell.m0, .gallery .zoom .cell:has(.pic:target) {
    --side: min(88vw, 34vh); }
  .gallery .grid .zoom.column:has(.pic:target) { gap: .4rem; } }
"""

_PAPER = """
@media print { :root { color-scheme: light; --ink: #000000; --soft: #444444;
  --paper: #ffffff; --line: #bbbbbb; --edge: #666666; --band: #f0f0f0; --warn: #ffffff;
  --warn-line: #b07800; --for: #e3f4ec; --against: #fce7dc; --open: #f0f0f0;
  --apart: #e8eff8; --link: #000000; }
  html { font-size: 10pt; }
  header, main, footer { max-width: none; padding: 0; }
  nav, .skip, .up, .choices, .tools, summary { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .banner { border: 1px solid var(--warn-line); border-left-width: .35rem; }
  figure, .banner, tr, .column, .groups > li { break-inside: avoid; }
  h2, h3, caption, .caption { break-after: avoid; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; } table { font-size: .7rem; } th, td { padding: .2rem; }
  th, td { overflow-wrap: break-word; } tbody tr:first-child { break-before: avoid; }
  .ledger td.verdict, .ledger td:nth-child(2):not(.number) { min-width: 9rem; }
  tr:target { outline: none; }
  .cell { width: min(3cm, 100% / var(--methods) - .6rem); } .cell img { width: 100%; }
  figure img { max-height: 22cm; width: auto; }
  .links a::after { content: " (" attr(href) ")"; }
  td.verdict, .groups > li { print-color-adjust: exact; } }
"""

#: The whole sheet; paper comes last, so that it also undoes the dark colours.
STYLE = _COLOURS + _TEXT + _VERDICTS + _TABLES + _PICTURES + _LARGE + _PAPER
