"""The shell of the report: one HTML file without links to anything outside it."""

from html import escape

STYLE = """
:root{--paper:#fcfcfb;--ink:#16181d;--muted:#5d6470;--line:#e2e4e8;--card:#fff;--train:#2a78d6;
  --eval:#d9591f;--right:#15803d;--wrong:#c2410c;--good:42 120 214;--bad:217 89 31;
  color-scheme:light dark}
@media (prefers-color-scheme:dark){
  :root{--paper:#15171b;--ink:#e9eaec;--muted:#9ba2ad;--line:#30343b;--card:#1c1f24;
    --train:#5b9ff0;--eval:#f08a4b;--right:#4ade80;--wrong:#fb923c;--good:70 140 230;
    --bad:240 120 60}
}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:62rem;background:var(--paper);
  color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0 .25rem}
h2{font-size:1.2rem;margin:2.75rem 0 .25rem;padding-top:.75rem;border-top:1px solid var(--line)}
h3{font-size:.95rem;margin:1.25rem 0 .5rem}
p{margin:.25rem 0 .75rem;max-width:46rem}
.how,.note,figcaption,small{color:var(--muted);font-size:.88rem}
nav{display:flex;flex-wrap:wrap;gap:.15rem .9rem;font-size:.9rem;margin-top:.75rem}
a{color:var(--train);text-decoration:none}
a:hover{text-decoration:underline}
.wide{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .7rem;text-align:right;white-space:nowrap}
thead th{color:var(--muted);font-weight:500;font-size:.8rem;white-space:normal;
  vertical-align:bottom;line-height:1.25}
tbody th{text-align:left;padding-left:0;font-weight:500;position:sticky;left:0;
  background:var(--paper)}
.scores{width:100%}
.scores tbody tr{border-top:1px solid var(--line)}
.scores tbody tr:last-child{border-bottom:1px solid var(--line)}
.best{font-weight:700}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(17rem,100%),1fr));
  gap:1rem 1.25rem}
figure{margin:0;min-width:0}
svg{display:block;width:100%;height:auto}
svg text{font-family:inherit}
svg *{stroke-linejoin:round}
.curves b{font-size:.92rem}
.curves .last{float:right;font-variant-numeric:tabular-nums;font-size:.88rem}
.key{display:inline-block;width:.9rem;height:.2rem;vertical-align:middle;margin:0 .3rem 0 .6rem}
img{display:block;width:100%;image-rendering:pixelated;border-radius:4px;background:var(--line)}
.views{display:grid;gap:1.25rem;
  grid-template-columns:repeat(auto-fill,minmax(min(16rem,100%),1fr))}
.views>div{display:grid;grid-auto-flow:column;grid-auto-columns:1fr;gap:.4rem}
.views figcaption{font-size:.75rem;text-align:center}
.hoods{display:grid;gap:0 2.5rem;
  grid-template-columns:repeat(auto-fill,minmax(min(26rem,100%),1fr))}
.hood{display:flex;gap:.4rem;align-items:flex-start;padding:.6rem 0;
  border-top:1px solid var(--line)}
.hood figure{flex:1 1 0;max-width:5rem;font-size:.78rem;line-height:1.3;overflow-wrap:anywhere}
.hood figure:first-child{margin-right:.6rem}
.hood small{font-size:.72rem}
.hood img{border:3px solid transparent}
.right img{border-color:var(--right)}
.wrong img{border:3px dashed var(--wrong)}
.right b{color:var(--right)}
.wrong b{color:var(--wrong)}
.map{max-width:44rem}
.map text{fill:var(--ink)!important;font-weight:600;paint-order:stroke;stroke:var(--paper);
  stroke-width:3.5px}
.legend{display:flex;flex-wrap:wrap;gap:.2rem .9rem;font-size:.85rem;padding:0;list-style:none}
.legend i{display:inline-block;width:.7rem;height:.7rem;border-radius:50%;margin-right:.35rem}
.matrix td,.matrix th{padding:.28rem .3rem;font-size:.82rem;min-width:2.1rem;text-align:center}
.matrix tbody th{text-align:right;padding-right:.6rem}
.matrix td:last-child{color:var(--muted);padding-left:.9rem}
.heat{width:min(36rem,100%);border:1px solid var(--line);background:none}
dl{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.15rem 1.25rem;
  margin:.5rem 0;font-size:.88rem}
dt{color:var(--muted);overflow-wrap:anywhere}
dd{margin:0;font-family:ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}
details{margin:.5rem 0}
summary{cursor:pointer;font-weight:500}
ul.plain{padding-left:1.1rem;margin:.25rem 0}
@media print{
  body{max-width:none}
  nav{display:none}
}
"""


def page(title: str, subtitle: str, sections: list[tuple[str, str, str]]) -> str:
    """A whole document.

    Args:
      title: text.
      subtitle: text under it.
      sections: (id, heading, HTML) in order.
    """
    links = "".join(f'<a href="#{name}">{escape(head)}</a>' for name, head, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{escape(head)}</h2>{content}</section>\n'
        for name, head, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>"
        f'<header><h1>{escape(title)}</h1><p class="how">{escape(subtitle)}</p>'
        f"<nav>{links}</nav></header>\n<main>{body}</main></body></html>\n"
    )


def how(text: str) -> str:
    """A sentence on how to read what follows."""
    return f'<p class="how">{escape(text)}</p>'


def pairs(rows: dict[str, object]) -> str:
    """Names and values."""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in rows.items())
    return f"<dl>{items}</dl>"
