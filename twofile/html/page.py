"""The page around a report: its colours, its shape, its few lines of script; nothing is loaded from anywhere.

The content security policy in its head lets no script run but the one that is named by its hash, so a text that found
its way into the page could do nothing there. The choice of the x axis is made of radio buttons and needs no script; the
script shows the values under the pointer. Light and dark follow the reader's system.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape

__all__ = ["COLOURS", "page"]

COLOURS = 8
"""How many curves have a colour of their own; the palette keeps its distances for those who see no red or green."""

_STYLE = """
:root{color-scheme:light dark;--paper:#f7f6f3;--card:#fff;--ink:#1b1b19;--soft:#66645e;--line:#e5e3dd;--good:#0b7a4b;
--c0:#2a78d6;--c1:#e0622a;--c2:#149a6c;--c3:#c98a00;--c4:#d1588b;--c5:#5b49b8;--c6:#d53f3f;--c7:#3d7a1d}
@media (prefers-color-scheme:dark){:root{--paper:#131312;--card:#1c1c1a;--ink:#ecebe6;--soft:#9b9991;--line:#32312d;
--good:#4cc38a;--c0:#4a93ea;--c1:#ea7a45;--c2:#2fb888;--c3:#d9a520;--c4:#e27aa6;--c5:#9a8df0;--c6:#ee7272;--c7:#74b34d}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header{max-width:1120px;margin:0 auto;padding:0 20px}
header{padding-top:36px;padding-bottom:8px}
main{padding-bottom:64px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{font-size:19px;margin:40px 0 12px;letter-spacing:-.01em}
h3{font-size:15px;margin:0}
h4{font-size:14px;margin:20px 0 6px}
.card>h4:first-child,.card>.part:first-child h4{margin-top:4px}
p{margin:0}
.soft{color:var(--soft)}
.chip{display:inline-block;border:1px solid var(--line);border-radius:99px;padding:1px 10px;font-size:13px;
margin-right:8px;background:var(--card)}
.chip.done{color:var(--good);border-color:currentColor}
.tiles{display:grid;grid-template-columns:repeat(var(--columns),1fr);background:var(--card);
border:1px solid var(--line);border-radius:12px;overflow:hidden;margin:20px 0 4px}
.tile{padding:14px 16px;box-shadow:0 0 0 .5px var(--line)}
.tile b{display:block;font-size:24px;font-weight:600;letter-spacing:-.02em;line-height:1.25;white-space:nowrap}
.tile span{color:var(--soft);font-size:13px}
.pick{position:absolute;opacity:0;pointer-events:none}
.axis{display:flex;gap:4px;align-items:center;margin:28px 0 12px;font-size:14px}
.axis span{color:var(--soft);margin-right:6px}
.axis label{padding:4px 14px;border:1px solid var(--line);border-radius:99px;cursor:pointer;background:var(--card)}
#by-tokens:checked~main label[for=by-tokens],#by-seconds:checked~main label[for=by-seconds]{background:var(--ink);
color:var(--paper);border-color:var(--ink)}
#by-tokens:focus-visible~main label[for=by-tokens],#by-seconds:focus-visible~main label[for=by-seconds]{
outline:2px solid var(--c0);outline-offset:2px}
#by-tokens:checked~main .seconds,#by-seconds:checked~main .tokens{display:none}
.charts{display:flex;flex-wrap:wrap;gap:16px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 18px 12px;
flex:1 1 300px;min-width:0;display:flex;flex-direction:column}
figure>div{flex:1;display:grid}
figure.large{flex-basis:460px}
figcaption{display:flex;flex-wrap:wrap;align-items:baseline;column-gap:10px;margin-bottom:10px}
figcaption p{color:var(--soft);font-size:13px}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;margin:0 0 10px;padding:0;list-style:none;
font-size:13px;color:var(--soft)}
.legend b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.swatch{display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:6px;vertical-align:middle;
background:var(--colour)}
.swatch.dash{background:none;border-left:2px dashed var(--soft);width:0;height:13px;border-radius:0}
.plot{display:grid;grid-template-columns:auto 1fr;grid-template-rows:minmax(150px,1fr) 22px;font-size:12px;
color:var(--soft);font-variant-numeric:tabular-nums}
.large .plot{grid-template-rows:minmax(270px,1fr) 22px}
.plot .y{position:relative;min-width:46px}
.plot .y span{position:absolute;right:8px;transform:translateY(-50%);white-space:nowrap}
.plot .x{position:relative;grid-column:2}
.plot .x span{position:absolute;top:5px;transform:translateX(-50%);white-space:nowrap}
.area{position:relative;min-width:0;border-bottom:1px solid var(--line);cursor:crosshair;touch-action:pan-y}
.area svg{display:block;position:absolute;width:100%;height:100%}
.area path{fill:none;vector-effect:non-scaling-stroke;stroke:var(--colour);stroke-linejoin:round;stroke-linecap:round}
.area .grid{stroke:var(--line);stroke-width:1;stroke-linecap:butt}
.area .mark{stroke:var(--colour,var(--soft));stroke-width:1;stroke-dasharray:3 4;stroke-linecap:butt}
.area .line{stroke-width:2}
.area .dots{stroke-width:6}
.area .points{stroke-width:9}
.area .bars{stroke-width:2.5;stroke-linecap:butt}
.area .raw{stroke-width:1;opacity:.3}
.area .band{fill:var(--colour);stroke:none;opacity:.18}
.area .interval{stroke-width:7;opacity:.35;stroke-linecap:butt}
.c0{--colour:var(--c0)}.c1{--colour:var(--c1)}.c2{--colour:var(--c2)}.c3{--colour:var(--c3)}
.c4{--colour:var(--c4)}.c5{--colour:var(--c5)}.c6{--colour:var(--c6)}.c7{--colour:var(--c7)}
.cross{position:absolute;top:0;bottom:0;width:1px;background:var(--soft);opacity:.5;pointer-events:none}
.tip{position:absolute;top:6px;z-index:2;pointer-events:none;background:var(--card);border:1px solid var(--line);
border-radius:8px;padding:6px 10px;box-shadow:0 4px 16px #0002;color:var(--ink);white-space:nowrap;line-height:1.45}
.tip i{display:inline-block;width:8px;height:8px;border-radius:50%;background:var(--colour);margin-right:6px}
.tip b{margin-left:8px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:14px;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:6px 14px 6px 0;border-bottom:1px solid var(--line);vertical-align:top;font-weight:400}
thead th{color:var(--soft);font-size:13px;white-space:nowrap}
tbody th{color:var(--soft)}
tbody th{white-space:nowrap}
tr:last-child>*{border-bottom:0}
.n{text-align:right;white-space:nowrap}
td{overflow-wrap:break-word}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:10px 20px;margin:4px 0 8px}
.pairs dt{color:var(--soft);font-size:13px}
.pairs dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 18px;margin-bottom:12px}
.dream{white-space:pre-wrap;overflow-wrap:anywhere;font:15px/1.6 Charter,"Iowan Old Style",Georgia,serif;max-width:68ch;
margin:8px 0 4px}
details>summary{cursor:pointer;color:var(--soft);font-size:14px}
details[open]>summary{margin-bottom:8px}
code{font-size:.92em}
footer{color:var(--soft);font-size:13px;margin-top:40px}
@media (max-width:600px){main,header{padding-left:14px;padding-right:14px}header{padding-top:22px}h1{font-size:25px}
figure,figure.large{flex-basis:100%;padding:14px 12px 8px}.large .plot{grid-template-rows:minmax(220px,1fr) 22px}
.tiles{--columns:2!important}.tile{padding:11px 13px}.tile b{font-size:20px}.plot .y{min-width:40px}
.pairs{grid-template-columns:repeat(auto-fill,minmax(120px,1fr))}}
@media (max-width:360px){.plot .x span:nth-child(even){display:none}}
@media print{figure,.card{break-inside:avoid}.axis{display:none}}
"""

_SCRIPT = """
const scale=text=>{const[a,b,log]=text.split(' ').map(Number);return t=>log?a*(b/a)**t:a+(b-a)*t};
const si=v=>{for(const[f,p]of[[1e21,'Z'],[1e18,'E'],[1e15,'P'],[1e12,'T'],[1e9,'G'],[1e6,'M'],[1e4,'k']])
if(Math.abs(v)>=f)return Number((v/(p=='k'?1e3:f)).toPrecision(4))+' '+p;return String(Number(v.toPrecision(4)))};
const span=s=>s<60?s.toFixed(0)+' s':s<3600?(s/60).toFixed(1)+' min':(s/3600).toFixed(2)+' h';
for(const plot of document.querySelectorAll('.plot')){
const area=plot.querySelector('.area'),{kind,unit}=plot.dataset,x=scale(plot.dataset.x),y=scale(plot.dataset.y);
const curves=[...plot.querySelectorAll('[data-name]')].map(path=>({...path.dataset,
points:path.getAttribute('d').slice(1).split(/[ML]/).map(p=>p.split(' ').map(parseFloat))}));
const cross=document.createElement('div'),tip=document.createElement('div');cross.className='cross';tip.className='tip';
const add=(to,tag,text,of='')=>{const e=document.createElement(tag);e.textContent=text;e.className=of;to.append(e);
return e};
area.onpointermove=event=>{const box=area.getBoundingClientRect(),at=(event.clientX-box.left)/box.width*1000;
const near=curves.map(c=>[c,c.points.reduce((a,b)=>Math.abs(b[0]-at)<Math.abs(a[0]-at)?b:a)]);
if(!near.length)return;const first=near.reduce((a,b)=>Math.abs(b[1][0]-at)<Math.abs(a[1][0]-at)?b:a)[1][0];
const value=x(first/1000),unitless=si(value)+(kind=='flops'?'FLOP':' '+kind);
tip.textContent='';add(tip,'div',kind=='seconds'?span(value):unitless);
for(const[c,p]of near){if(Math.abs(p[0]-first)>25)continue;const row=add(tip,'div','');add(row,'i','','c'+c.colour);
row.append(c.name);const v=y(1-p[1]/300);add(row,'b',unit=='%'?(100*v).toFixed(1)+'%':si(v)+(unit?' '+unit:''))}
area.append(cross,tip);cross.style.left=first/10+'%';
const left=first/1000*box.width;tip.style.left=Math.max(-40,left+(left>box.width/2?-tip.offsetWidth-10:10))+'px'};
area.onpointerleave=()=>{cross.remove();tip.remove()}}
"""


def page(title: str, header: str, body: str) -> str:
    """A whole HTML document. `header` and `body` are HTML; a `.tokens` and a `.seconds` part exclude one another."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<input class="pick" type="radio" name="axis" id="by-tokens" checked>
<input class="pick" type="radio" name="axis" id="by-seconds">
<header>{header}</header>
<main>{body}</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""
