"""The page's style sheet. No file of its own, so that the package needs no data files."""

from __future__ import annotations

from agents.application.report.charts import COLOURS

_BASE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1c2127; --soft: #59636e; --rule: #dfe2e6;
  --faint: #eceef0; --focus: #0b62d6; --warm: #d9690b; --cold: #2f7fd0; @LIGHT@ }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1b1f25; --ink: #e8ebee; --soft: #a3adb8;
  --rule: #343b44; --faint: #272d34; --focus: #7cb8ff; --warm: #e57d28; --cold: #3d8fe0; @DARK@ } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
header.top, main, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header.top { padding-top: 36px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.015em; }
h2 { font-size: 1.35rem; margin: 52px 0 6px; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 0 0 6px; overflow-wrap: anywhere; } h3.part { margin-top: 28px; font-size: 1.1rem; }
.detail h3 { margin-top: 16px; }
p { max-width: 46em; margin: 6px 0 12px; }
.lede, .note, figcaption { color: var(--soft); }
.note { font-size: .9rem; }
a { color: var(--focus); }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; padding: 0; margin: 14px 0 0; }
.skip { position: absolute; left: -999px; }
.skip:focus { left: 12px; top: 12px; background: var(--card); padding: 8px; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; border-radius: 4px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 14px; margin: 22px 0 8px;
  padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px; }
.tiles dt { color: var(--soft); font-size: .84rem; } .tiles dd { margin: 0; font-size: 1.55rem; font-weight: 650;
  letter-spacing: -.02em; } .tiles dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft);
  letter-spacing: 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); gap: 18px;
  align-items: start; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 14px 16px 10px; position: relative; min-width: 0; content-visibility: auto;
  contain-intrinsic-size: auto 350px; }
figcaption { font-size: .86rem; }
.wide { max-width: 560px; }
.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { fill: var(--ink); font-size: 12.5px; } .chart text.number { fill: var(--soft);
  font-variant-numeric: tabular-nums; } .chart text.note { fill: var(--soft); font-size: 11px; }
.chart text.note, .chart text.value, .chart text.name { paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
.chart text.value { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.chart text.label { fill: var(--soft); }
.chart .grid { stroke: var(--faint); display: inline; }
.chart .axis, .chart .tick { stroke: var(--soft); } .chart .guide { stroke: var(--soft); stroke-dasharray: 2 3; }
.chart .zero { stroke: var(--ink); stroke-dasharray: 4 3; stroke-opacity: .6; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .s0 .line { stroke-width: 2.8; }
.band { fill-opacity: .15; stroke: none; } .bar { stroke: none; } .whisker { stroke-width: 3; stroke-opacity: .55;
  stroke-linecap: round; } .median { stroke-width: 3; } .mark { fill-opacity: .55; } .censored { fill: none;
  stroke-width: 1.6; }
.cursor { stroke: var(--ink); stroke-opacity: .5; visibility: hidden; } .on .cursor { visibility: visible; }
.cursors circle { stroke: var(--card); stroke-width: 1.5; }
.swatch { width: 34px; height: 12px; vertical-align: middle; flex: none; }
.tip { position: absolute; z-index: 3; pointer-events: none; background: var(--ink); color: var(--page);
  font-size: .78rem; line-height: 1.4; padding: 7px 10px; border-radius: 7px; max-width: min(290px, 92%);
  font-variant-numeric: tabular-nums; box-shadow: 0 3px 14px #0005; }
.tip[hidden] { display: none; } .tip b { display: block; } .tip span { display: block; }
.legend, .switch { display: flex; flex-wrap: wrap; gap: 6px 8px; align-items: center; border: 0; padding: 0;
  margin: 12px 0; min-width: 0; }
.switch legend { float: left; padding: 0 6px 0 0; color: var(--soft); font-size: .92rem; }
.legend button, .switch label { display: inline-flex; align-items: center; gap: 8px; font: inherit; font-size: .88rem;
  color: var(--ink); background: var(--card); border: 1px solid var(--rule); border-radius: 999px; padding: 5px 13px;
  min-height: 34px; cursor: pointer; }
.legend button[aria-pressed="false"] { color: var(--soft); text-decoration: line-through; opacity: .6; }
.switch input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.switch label:has(input:checked) { background: var(--ink); color: var(--page); border-color: var(--ink); }
.switch label:has(input:focus-visible) { outline: 3px solid var(--focus); outline-offset: 2px; }
.bar-top { position: sticky; top: 0; z-index: 2; background: var(--page); padding: 4px 0; display: flex;
  flex-wrap: wrap; gap: 0 26px; }
.bar-top .legend, .bar-top .switch { margin: 6px 0; }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 10px; background: var(--card);
  margin: 12px 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 8px 12px; font-size: .86rem; }
th, td { padding: 7px 12px; text-align: left; border-top: 1px solid var(--faint); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; white-space: nowrap; }
.n { text-align: right; white-space: nowrap; }
tbody tr:hover { background: var(--faint); }
details { margin: 12px 0; } summary { cursor: pointer; color: var(--focus); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; background: var(--card); padding: 12px 16px;
  border: 1px solid var(--rule); border-radius: 10px; }
footer { color: var(--soft); font-size: .86rem; padding-top: 34px; padding-bottom: 46px; }
"""
_TOKENS = """
.viewer { display: grid; grid-template-columns: minmax(230px, 300px) minmax(0, 1fr); gap: 18px; align-items: start; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; min-width: 0; }
.episodes { list-style: none; margin: 0; padding: 4px; max-height: 520px; overflow-y: auto; background: var(--card);
  border: 1px solid var(--rule); border-radius: 10px; }
.episodes [role=option] { padding: 7px 10px; border-radius: 7px; cursor: pointer; font-size: .88rem;
  line-height: 1.35; }
.episodes [role=option] b { font-variant-numeric: tabular-nums; } .episodes small { color: var(--soft); display: block;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.episodes [aria-selected=true] { background: var(--ink); color: var(--page); }
.episodes [aria-selected=true] small { color: inherit; opacity: .8; }
.prompt { margin: 0 0 10px; max-width: none; } .prompt bdi { font-weight: 600; overflow-wrap: anywhere; }
.tokens { display: flex; flex-wrap: wrap; gap: 5px; margin: 10px 0; }
.tokens [role=option], .reply { border-radius: 7px; padding: 4px 8px 3px; text-align: center; line-height: 1.25;
  min-width: 44px; }
.tokens [role=option] { cursor: pointer; border: 2px solid transparent; background: var(--tone, var(--faint));
  color: var(--ink); }
.tokens [aria-selected=true] { border-color: var(--ink); }
.tokens bdi { display: block; font-weight: 600; overflow-wrap: anywhere; white-space: pre-wrap; }
.tokens small { font-size: .74rem; font-variant-numeric: tabular-nums; }
.tokens .slip bdi { text-decoration: underline wavy; text-underline-offset: 3px; text-decoration-thickness: 1.5px; }
.reply { color: var(--soft); border: 2px dashed var(--rule); font-size: .88rem; max-width: 100%; }
.scale { display: flex; align-items: center; gap: 8px; color: var(--soft); font-size: .8rem; max-width: 380px;
  font-variant-numeric: tabular-nums; }
.scale i { flex: 1; height: 10px; border-radius: 5px; border: 1px solid var(--rule); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(104px, 1fr)); gap: 4px 14px; margin: 14px 0; }
.facts dt { color: var(--soft); font-size: .78rem; } .facts dd { margin: 0; font-weight: 600;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.best td:nth-child(3) { width: 45%; } .best .meter { height: 12px; border-radius: 3px; background: var(--cold); }
.best .chosen { font-weight: 650; } .best .chosen .meter { background: var(--warm); }
"""
_SMALL = """
@media (max-width: 720px) {
  header.top, main, footer { padding-left: 14px; padding-right: 14px; }
  header.top { padding-top: 22px; } h1 { font-size: 1.5rem; } h2 { margin-top: 38px; }
  .viewer { grid-template-columns: minmax(0, 1fr); } .episodes { max-height: 215px; }
  .bar-top { position: static; } .tiles { grid-template-columns: 1fr 1fr; gap: 10px; } .tiles dd { font-size: 1.3rem; }
  figure { padding: 12px 8px 8px; } .chart text { font-size: 14.5px; } .chart text.value, .chart text.note {
  font-size: 12.5px; } th, td { padding: 6px 9px; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #bbb; --faint: #e5e5e5;
    @LIGHT@ }
  body { font-size: 10.5pt; } nav, .legend button[aria-pressed="false"], .skip, .tip, .episodes {
    display: none; }
  .viewer { display: block; } .bar-top { position: static; } figure, table, .card { break-inside: avoid; }
  h2, h3 { break-after: avoid; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .grid { grid-template-columns: 1fr 1fr; }
}
@media (forced-colors: active) {
  .tokens [role=option], .switch label:has(input:checked) { forced-color-adjust: none; }
}
"""


def style_sheet() -> str:
    """The whole style sheet, with the colours of :data:`agents.application.report.charts.COLOURS`."""
    light, dark = (" ".join(f"--c{slot}: {pair[mode]};" for slot, pair in enumerate(COLOURS)) for mode in (0, 1))
    slots = "\n".join(
        f".c{slot} {{ stroke: var(--c{slot}); fill: var(--c{slot}); }} .hide-{slot} .s{slot} {{ display: none; }}"
        for slot in range(len(COLOURS))
    )
    return (slots + _BASE + _TOKENS + _SMALL).replace("@LIGHT@", light).replace("@DARK@", dark)
