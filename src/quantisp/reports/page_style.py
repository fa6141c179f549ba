"""The page's style sheet: light, dark, narrow and on paper."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0;
  --back: #ffffff; --mark: #e6f4ea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d;
  --back: #0d1117; --mark: #12351f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 64rem; background: var(--back);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 0.75rem; }
p { margin: 0 0 0.75rem; }
.answer { font-size: 1.125rem; max-width: 46rem; }
.facts, figcaption, caption { color: var(--soft); font-size: 0.875rem; }
figure { margin: 1.5rem 0; }
figure img { display: block; width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
figcaption { margin-top: 0.5rem; max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; padding-top: 0.5rem; }
th, td { padding: 0.2rem 0.6rem; text-align: right; white-space: nowrap; font-weight: normal; }
thead th { color: var(--soft); vertical-align: bottom; }
thead .group { color: var(--ink); font-weight: 600; text-align: left; }
thead tr:last-child th { border-bottom: 1px solid var(--line); }
tbody th.name { text-align: left; }
.first { padding-left: 1.75rem; }
tr.float > * { border-bottom: 1px solid var(--line); }
.chosen { background: var(--mark); font-weight: 600; }
details { margin: 0.5rem 0; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: 0.25rem 1.5rem;
  margin: 0; font-size: 0.875rem; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
@media (max-width: 36rem) { body { padding-top: 1.5rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 0.5rem; } }
@media print { :root { --ink: #000000; --soft: #444444; --line: #bbbbbb; --back: #ffffff;
  --mark: #eeeeee; } body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; } .wide { overflow: visible; }
  table { font-size: 7.5pt; } th, td { padding: 0.1rem 0.3rem; } }
""".strip()
