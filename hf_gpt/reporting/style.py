"""The style sheet of a page: light and dark, desk, phone and paper."""

from hf_gpt.reporting.plots import LIGHT_COLOURS
from hf_gpt.reporting.tooltips import STYLE as TOOLTIP_STYLE


STYLE = (
    f"\n:root{{{LIGHT_COLOURS}}}"
    + """
:root{--page:#f7f7f4;--card:#fff;--ink:#23272e;--soft:#5a626d;--rule:#deded8;--accent:#1f5f66;--mark:#dcebec}
@media screen and (prefers-color-scheme:dark){:root{--page:#14171a;--card:#1b1f24;--ink:#e3e6ea;--soft:#a3abb6;
--rule:#30363d;--accent:#7cc4cc;--mark:#21434a;--axis:#a3abb6;--grid:#2c3239;--series-0:#78aee8;--series-1:#f0975a;
--series-2:#6cc3ad;--series-3:#c39be0}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0 auto;max-width:1088px;padding:2.5rem 1.5rem 3rem;background:var(--page);color:var(--ink);
font:1rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
h1,h2,h3,p,ul,dl,dd,figure,pre{margin:0}
h1{font-size:clamp(1.6rem,1.2rem + 1.8vw,2.3rem);line-height:1.2;font-weight:650;letter-spacing:-.01em}
h2{font-size:1.3rem;line-height:1.3;font-weight:650;margin-bottom:1rem}
h3{font-size:1rem;font-weight:650}
.eyebrow{color:var(--accent);font-size:.85rem;font-weight:600;margin-bottom:.4rem}
.lead{font-size:1.08rem;max-width:68ch;margin-top:.9rem}
.muted,.note,footer{color:var(--soft);font-size:.875rem}
section{margin-top:3rem;scroll-margin-top:1rem}
a{color:var(--accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:3px}
.tiles{display:grid;grid-template-columns:repeat(var(--few),1fr);gap:.75rem;margin-top:1.75rem}
.tiles>div,.chart,.sample{background:var(--card);border:1px solid var(--rule);border-radius:10px}
.tiles>div{padding:.85rem 1rem}
.tiles dt{color:var(--soft);font-size:.875rem;line-height:1.4}
.tiles dd{font-size:1.5rem;line-height:1.3;font-weight:650;font-variant-numeric:tabular-nums}
.tiles .note{font-size:.8rem;font-weight:400;line-height:1.4;margin-top:.15rem}
nav{margin-top:1.75rem;border-top:1px solid var(--rule);padding-top:.6rem}
nav ul,.keys{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.25rem}
nav a{display:inline-block;padding:.35rem 0}
.charts{display:grid;gap:1rem;grid-template-columns:minmax(0,1fr)}
.chart{padding:1rem 1rem .75rem}
.chart figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;align-items:baseline;gap:.1rem 1.25rem;
margin-bottom:.5rem}
.keys{font-size:.875rem;color:var(--soft)}
.keys b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.key{display:inline-block;width:1.1em;height:.25em;border-radius:2px;vertical-align:.2em;margin-right:.45em}
.series-0{background:var(--series-0)}.series-1{background:var(--series-1)}
.series-2{background:var(--series-2)}.series-3{background:var(--series-3)}
.plot{display:block;width:100%;height:auto;font-family:inherit}
.scale{line-height:1}.auc{display:block;width:100%;max-width:11rem;height:auto;margin:.3rem 0 .1rem}
.intervals{margin-top:1rem;max-width:34rem}.intervals svg{display:block;width:100%;height:auto}
.intervals text{fill:var(--ink);font-size:13px}.intervals .rail{stroke:var(--grid)}
.intervals .bar{stroke:var(--series-0);stroke-width:4;stroke-linecap:round;opacity:.55}
.intervals circle{fill:var(--series-0)}
.auc .rail{stroke:var(--grid);stroke-width:1}.auc .chance{stroke:var(--axis);stroke-width:1;stroke-dasharray:2 1.5}
.auc .interval{stroke:var(--series-0);stroke-width:3;stroke-linecap:round}.auc circle{fill:var(--ink)}
.plot *{stroke-linejoin:round;stroke-linecap:butt}
.wide,.medium{display:none}
.narrow{max-width:30rem;margin:0 auto}
details{margin-top:1rem}
summary{cursor:pointer;color:var(--accent);padding:.3rem 0}
.scroll{overflow-x:auto;margin-top:.5rem}
table{border-collapse:collapse;width:100%;font-size:.925rem;line-height:1.45}
th,td{border-bottom:1px solid var(--rule);padding:.45rem .75rem .45rem 0;text-align:left;vertical-align:top}
.pairs{max-width:46rem}
.pairs th{font-weight:400;color:var(--soft);width:40%}
.pairs details{margin:0}.pairs summary{padding:0}
caption{text-align:left;color:var(--soft);font-size:.875rem;padding-bottom:.3rem}
.unseen{position:absolute;width:1px;height:1px;padding:0;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.numbers{font-variant-numeric:tabular-nums}
.numbers th,.numbers td{text-align:right;padding:.35rem 0 .35rem 1.25rem;overflow-wrap:normal}
.numbers thead th{font-weight:600;vertical-align:bottom;min-width:6.2rem;line-height:1.3}
.numbers tr>:first-child{text-align:left;padding-left:0;min-width:4rem}
.numbers tbody th{font-weight:400}
.words th,.words td{overflow-wrap:normal;min-width:5.5rem}.words td:last-child{min-width:16rem}
.sample{margin-top:1rem;padding:1rem 1.1rem}
.sample header{display:flex;flex-wrap:wrap;justify-content:space-between;align-items:baseline;gap:0 1.25rem;
margin-bottom:.6rem}
pre{max-width:90ch;margin-inline-end:auto;white-space:pre-wrap;overflow-wrap:anywhere;tab-size:4;
font:.9rem/1.6 ui-monospace,"Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre+p,.after{margin-top:.6rem}
.charts+pre{margin-top:1.75rem}.charts+.charts{margin-top:1rem}
mark{background:var(--mark);color:inherit;border-radius:3px;padding:.1em .15em;-webkit-box-decoration-break:clone;
box-decoration-break:clone;print-color-adjust:exact;-webkit-print-color-adjust:exact}
footer{margin-top:3.5rem;border-top:1px solid var(--rule);padding-top:.9rem}
.media{margin-top:1rem}.media img{display:block;max-width:100%;border-radius:6px;image-rendering:pixelated}
.audio{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));margin-top:1rem}
.audio audio{width:100%}
@media (max-width:480px){body{padding:1.5rem 1rem 2rem}.tiles{grid-template-columns:1fr 1fr;gap:.6rem}
.tiles>div:last-child:nth-child(odd){grid-column:1/-1}.tiles>div{padding:.7rem .8rem}
.tiles dd{font-size:1.25rem}section{margin-top:2.4rem}
.chart,.sample{padding:.85rem .8rem .7rem}}
@media (min-width:640px){.charts{grid-template-columns:repeat(2,minmax(0,1fr))}.lead-chart{grid-column:1/-1}
.lead-chart .medium{display:block}.lead-chart .narrow{display:none}}
@media screen and (min-width:1000px){.tiles{grid-template-columns:repeat(var(--many),1fr)}
.wide{display:block}.narrow,.lead-chart .medium{display:none}
.thirds{grid-template-columns:repeat(3,minmax(0,1fr))}
.thirds .chart:not(.lead-chart) .wide{display:none}.thirds .chart:not(.lead-chart) .narrow{display:block}}
@media print{@page{margin:16mm}html{color-scheme:light}:root{--page:#fff}body{padding:0;font-size:10.5pt}
nav,summary{display:none}section{margin-top:1.6rem}h2,h3{break-after:avoid}#environment{break-inside:avoid}
.chart,.tiles>div,tr{break-inside:avoid}
.charts{grid-template-columns:repeat(2,minmax(0,1fr))}.lead-chart{grid-column:1/-1}
.lead-chart .medium{display:block}.lead-chart .narrow{display:none}.key{print-color-adjust:exact}
details::details-content{content-visibility:visible;display:block;block-size:auto}.scroll{overflow:visible}
.numbers{font-size:8pt}.numbers th,.numbers td{padding-left:.5rem}.numbers thead th{min-width:0}}
"""
    + TOOLTIP_STYLE
)
