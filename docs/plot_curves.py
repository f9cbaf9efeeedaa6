#!/usr/bin/env python3
"""Draws the loss curves of runs as an SVG picture. usage: docs/plot_curves.py OUT.svg NAME=METRICS.jsonl:ENTROPY …"""
import json
import sys

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 300, 50, 40
COLOURS = ["#1f77b4", "#d62728", "#2ca02c"]


def main():
    curves = []
    for argument in sys.argv[2:]:
        name, _, rest = argument.partition("=")
        path, _, entropy = rest.rpartition(":")
        rows = [json.loads(line) for line in open(path)]
        points = [(r["step"], r.get("mlm_loss", r.get("lm_loss"))) for r in rows if "loss" in r]
        marks = [(r["step"], r.get("validation_mlm_loss", r.get("validation_lm_loss"))) for r in rows if "validation_loss" in r]
        curves.append((name, points, marks, float(entropy)))
    last = max(step for _, points, _, _ in curves for step, _ in points)
    values = [v for _, points, marks, entropy in curves for v in [*(v for _, v in points + marks), entropy]]
    low, high = min(values) - 0.2, max(values) + 0.2
    x = lambda step: LEFT + (WIDTH - LEFT - 20) * step / last
    y = lambda value: 15 + (HEIGHT - BOTTOM - 15) * (high - value) / (high - low)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for value in range(int(low) + 1, int(high) + 1):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>')
    for i, (name, points, marks, entropy) in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>')
        out += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3.5" fill="{colour}"/>' for s, v in marks]
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(entropy):.1f}" y2="{y(entropy):.1f}" stroke="{colour}" stroke-dasharray="6 4"/>')
        out.append(f'<text x="{WIDTH - 24}" y="{30 + 16 * i}" text-anchor="end" fill="{colour}">{name}: loss, validation (dots), unigram entropy (dashed)</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">step (to {last}); nats per predicted token</text></svg>')
    open(sys.argv[1], "w").write("\n".join(out) + "\n")


main()
