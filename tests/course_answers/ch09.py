ANSWERS = {
    "09.1": (lambda name, style: style + " " + name.partition(" ")[2], [
        (lambda name, style: style, "object was lost"),
        (lambda name, style: f"{name.split()[1]} {style}", "came second"),
        (lambda name, style: f"{style} {name}", "still there"),
        (lambda name, style: f"{name.split()[0]} {style}", "style kept"),
    ]),
    "09.2": (lambda seen, asked, c: ((seen == asked) & (asked != c)).sum() / (asked != c).sum(), [
        (lambda seen, asked, c: (seen == asked).float().mean(), "what UA is for"),
        (lambda seen, asked, c: (seen == asked)[asked == c].float().mean(), "about the others"),
        (lambda seen, asked, c: (seen != c)[asked != c].float().mean(), "only says"),
        (lambda seen, asked, c: (seen == asked)[seen != c].float().mean(), "by what was seen"),
        (lambda seen, asked, c: ((seen == asked) & (asked != c)).sum(), "not their share"),
    ]),
    "09.3": ("filled star", [
        ("hatched circle", "keeps the style"), ("filled circle", "stars are circles"), ("noise", "object with it"),
        ("square", "not among the choices"),
    ]),
}
