/** The page's style: no font, image or file from elsewhere. Colours: Okabe and Ito's, which all kinds of colour vision tell apart; words say everything that a colour says. */
export const STYLE = `
:root{color-scheme:light dark;--bg:#fff;--fg:#1c1e21;--dim:#5c6370;--line:#d9dce1;--card:#f6f7f9;--good:#0a6b3d;--bad:#b3261e;--host:#6b7280;--process:#0072b2;--userns:#3f9bd1;--runsc:#b0568a;--cold:#d55e00;--vm:#c98500;--p1:#0072b2;--p2:#d55e00;--p3:#c98500;--p4:#6b7280}
@media (prefers-color-scheme:dark){:root{--bg:#14161a;--fg:#e6e8eb;--dim:#9aa3af;--line:#353a42;--card:#1c2026;--good:#5fd29b;--bad:#ff8a80;--host:#9ca3af;--process:#4aa8e0;--userns:#8fd0f5;--runsc:#dd94bd;--cold:#f08a4b;--vm:#f0b93a;--p1:#4aa8e0;--p2:#f08a4b;--p3:#f0b93a;--p4:#9ca3af}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0}h2{font-size:1.25rem;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--line)}h3{font-size:1rem;margin:1.25rem 0 .25rem}
p,ul{margin:.4rem 0}ul{padding-left:1.2rem}.dim,footer{color:var(--dim);font-size:.875rem}
.warnings{list-style:none;padding:.5rem .9rem;border-left:4px solid var(--bad);background:var(--card)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;margin:1rem 0;padding:0;list-style:none}
.tiles li{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}.tiles b{display:block;font-size:1.15rem}.tiles .name{color:var(--dim);font-size:.875rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1.25rem;align-items:start}
figure{margin:0;min-width:0}figcaption{font-weight:600;font-size:.95rem;margin-bottom:.4rem}.plot>svg{display:block;width:100%;max-width:40rem;height:auto}
svg text{font:12px system-ui,sans-serif;fill:var(--fg)}.axis line{stroke:var(--line)}.axis text,.unit{fill:var(--dim);font-size:11px}.value{font-size:11px}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;list-style:none;padding:0;margin:.2rem 0 .5rem;font-size:.85rem}.legend li{display:flex;align-items:center;gap:.4rem}.swatch{width:.75rem;height:.75rem;flex:none}
.s-host{--c:var(--host)}.s-process{--c:var(--process)}.s-process-userns{--c:var(--userns)}.s-runsc{--c:var(--runsc)}.s-vm-cold{--c:var(--cold)}.s-vm{--c:var(--vm)}
rect,circle{fill:var(--c)}.part-workload{--c:var(--p1)}.part-guestKernel{--c:var(--p2)}.part-vmm{--c:var(--p3)}.part-supervisor{--c:var(--p4)}
.shape{fill:var(--c);opacity:.22}.plot circle{opacity:.75}.median{stroke:var(--fg);stroke-width:2;fill:none}.interval{stroke:var(--fg);stroke-width:3;opacity:.6}
.curve{stroke:var(--c);stroke-width:2;fill:none}.predicted{stroke:var(--c);stroke-width:1.5;stroke-dasharray:5 4;fill:none}.end{stroke:var(--bg);stroke-width:1.5}.limit{stroke:var(--bad);stroke-width:1.5}.one,.cost{stroke:var(--fg);stroke-width:1.5}
table{border-collapse:collapse;width:100%;font-size:.9rem;margin:.5rem 0}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}th{font-weight:600}
td small{color:var(--dim);margin-left:.35rem}.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}.faint{color:var(--dim)}.prefix{display:none;color:var(--dim);font-weight:400}
details{margin:.75rem 0;font-size:.9rem}summary{cursor:pointer;color:var(--dim)}pre{white-space:pre-wrap;background:var(--card);border:1px solid var(--line);padding:.5rem;margin:.2rem 0 .6rem;font-size:.8rem}
footer{margin-top:3rem;border-top:1px solid var(--line);padding-top:.75rem}
@media (max-width:640px){thead{display:none}.prefix{display:inline}tbody tr{display:block;padding:.4rem 0;border-bottom:1px solid var(--line)}tbody th,tbody td{display:block;border:0;padding:.05rem 0}td::before{content:attr(data-label) ": ";color:var(--dim)}td:empty{display:none}}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--dim:#444;--line:#bbb;--card:#fff;--good:#0a6b3d;--bad:#b3261e;--host:#6b7280;--process:#0072b2;--userns:#3f9bd1;--runsc:#b0568a;--cold:#d55e00;--vm:#c98500;--p1:#0072b2;--p2:#d55e00;--p3:#c98500;--p4:#6b7280}
body{max-width:none;padding:0;font-size:11pt}figure,tr,.tiles li{break-inside:avoid}h2,h3{break-after:avoid}details{display:none}svg{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
`
