"""The page that an audit ends with: plain words first, then every attack with what it had, and its interval."""

from __future__ import annotations

from .auditing import Audit
from .base import Outcome


def report_card(audit: Audit) -> str:
    """One page of Markdown."""
    lines = [f"# What came back of {audit.target}", "", *_in_words(audit), "", *_table(audit)]
    if audit.left_out:
        lines += ["", "Not tried: " + "; ".join(f"{name} ({reason})" for name, reason in audit.left_out.items()) + "."]
    return "\n".join([*lines, "", *_small_print(audit)]) + "\n"


def _in_words(audit: Audit) -> list[str]:
    before, attacks = audit.outcomes["none"]["audited"], {k: v for k, v in audit.outcomes.items() if k != "none"}
    said = [f"Asked for {audit.target} before any attack, the model shows it in {before.target.percent}."]
    if not attacks:
        return [*said, "No attack was run, so nothing is known of what would bring it back."]
    if "retrained" not in audit.outcomes["none"]:
        return [*said, *_without_control(attacks)]
    leads = {name: lead for name in attacks if (lead := audit.lead(name)) is not None}
    alone = [f"{name} {records['audited'].target.percent}" for name, records in attacks.items() if name not in leads]
    rest = [f"Without a control, since it cannot be run on the model that never knew it: {'; '.join(alone)}."] if alone else []
    on_both = "No attack that was run on both models" if alone else "No attack"
    back = {name: lead for name, lead in leads.items() if lead.low > 0}
    if not back:
        none = f"{on_both} brought back more than it gives a model that never knew it. That is no proof that none could."
        return [*said, none, *rest]
    best = max(back, key=lambda name: back[name].value)
    ahead = f"{best} leads by {back[best].value:.2f} [{back[best].low:.2f}, {back[best].high:.2f}]"
    more = f"{len(back)} of {len(leads)} attacks give more than on a model that never knew it"
    return [*said, f"**It is still in the weights**: {more}; {ahead}.", *rest]


def _without_control(attacks: dict[str, dict[str, Outcome]]) -> list[str]:
    blind = {name: records["audited"] for name, records in attacks.items() if not records["audited"].teaches}
    said = ["No model that never knew it was given. What an attacker with images of it brings back may have been taught by the "
            "attack: an attack that teaches is no proof of memory."]
    if blind:
        best = max(blind, key=lambda name: blind[name].target.value)
        said.append(f"Of the attacks that show it no such image, {best} brings back most: {blind[best].target.percent}.")
    return said


def _table(audit: Audit) -> list[str]:
    rows = ["| attack | had, beside the network | shows it | never knew it | lead | other classes | seconds |",
            "|---|---|---|---|---|---|---|"]
    for name, records in audit.outcomes.items():
        own, other, lead = records["audited"], records.get("retrained"), audit.lead(name)
        cells = [
            name, ", ".join(own.had) or "nothing", _share(own), _share(other) if other else "", f"{lead.value:.2f} "
            f"[{lead.low:.2f}, {lead.high:.2f}]" if lead else "", f"{own.retained.value:.2f}" if own.retained else "",
            f"{own.seconds:.0f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _share(outcome: Outcome) -> str:
    return f"{outcome.target.value:.2f} [{outcome.target.low:.2f}, {outcome.target.high:.2f}]"


def _small_print(audit: Audit) -> list[str]:
    return [
        f"Shares of samples that the judge takes for {audit.target}, with 95 % Wilson intervals; drawn with fresh noise, unless "
        "the attack draws them. Leads are differences to the model that never knew it, by Newcombe's method; their intervals hold "
        "together with 95 %. All of it rests on one model of each kind and one seed, and on attacks of one length: a longer "
        "one may bring back more."
    ]
