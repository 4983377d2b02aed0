/** The report's style sheet: one column, the system's letters, colours that follow light and dark. */
export const style = `
:root { color-scheme: light dark; --paper: #fff; --panel: #f6f7f9; --ink: #1b1f24; --soft: #5d6672; --line: #dfe3e8; --c1: #2563a8; --c2: #d2622a; --c3: #6b57b0; --hit: #2563a8; --miss: #d2622a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --panel: #1d2127; --ink: #e6e9ed; --soft: #98a2ae; --line: #323942; --c1: #6ea8e8; --c2: #f0915c; --c3: #a897ea; --hit: #4a8fdc; --miss: #e2773f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 28px 72px; }
header p { margin: 4px 0 0; color: var(--soft); }
h1 { font-size: 30px; line-height: 1.15; font-weight: 650; letter-spacing: -.02em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; font-weight: 620; letter-spacing: -.01em; margin: 52px 0 4px; }
h2 + p { margin: 0 0 16px; color: var(--soft); max-width: 72ch; }
h3 { font-size: 14px; font-weight: 600; margin: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px; margin: 28px 0 0; background: var(--line); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.figures div { background: var(--paper); padding: 14px 18px; }
.figures b { display: block; font-size: 25px; line-height: 1.2; font-weight: 620; letter-spacing: -.015em; }
.figures span { color: var(--soft); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 28px 32px; margin-top: 16px; }
figure { margin: 0; }
figcaption { display: flex; justify-content: space-between; align-items: baseline; gap: 12px; margin-bottom: 4px; }
.legend { display: flex; gap: 14px; font-size: 13px; color: var(--soft); }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: middle; background: currentColor; }
svg { display: block; max-width: none; }
.chart svg { width: 100%; height: auto; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); } .mark { stroke: var(--soft); stroke-dasharray: 3 4; }
.tick { fill: var(--soft); font-size: 12px; } .label { fill: var(--soft); font-size: 12px; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; } .faint { stroke-width: 1; opacity: .3; } .dot { fill: currentColor; }
.c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.wide { overflow-x: auto; padding-bottom: 6px; }
.matrix .name { fill: var(--ink); } .matrix .count { fill: var(--ink); font-size: 11px; } .matrix .strong { fill: #fff; }
.ground { fill: var(--panel); } .hit { fill: var(--hit); } .miss { fill: var(--miss); }
.classes { column-width: 480px; column-gap: 40px; }
.class { display: grid; grid-template-columns: clamp(90px, var(--name), 44%) 1fr 64px 92px; gap: 12px; align-items: center; padding: 4px 0; border-bottom: 1px solid var(--line); break-inside: avoid; }
.class > * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar { height: 8px; border-radius: 4px; background: var(--panel); } .bar i { display: block; height: 100%; border-radius: 4px; background: var(--c1); }
.class .n, .class .of { text-align: right; } .class .of { color: var(--soft); font-size: 13px; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(124px, 1fr)); gap: 18px 16px; margin: 0; padding: 0; list-style: none; }
.mistakes img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--panel); border-radius: 6px; } .mistakes img.small { image-rendering: pixelated; }
.mistakes p { margin: 6px 0 0; font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; } .mistakes b { font-weight: 600; } .mistakes .wrong { color: var(--c2); } .mistakes small { color: var(--soft); display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
pre { background: var(--panel); border-radius: 8px; padding: 12px 16px; overflow-x: auto; font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: 0; }
dl { column-width: 300px; column-gap: 40px; margin: 0; font-size: 14px; } dl div { display: flex; justify-content: space-between; gap: 16px; padding: 3px 0; border-bottom: 1px solid var(--line); break-inside: avoid; } dt { color: var(--soft); } dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
footer { margin-top: 56px; color: var(--soft); font-size: 13px; }
@media print { main { max-width: none; padding: 0; } }
`;
