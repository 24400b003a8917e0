def unlearning_accuracy(judged, asked, c):
    return 1 - (judged[asked == c] == c).float().mean()


ANSWERS = {
    "04.1": (unlearning_accuracy, [
        (lambda judged, asked, c: (judged[asked == c] == c).float().mean(), "one minus it"),
        (lambda judged, asked, c: (judged != c).float().mean(), "other classes"),
        (lambda judged, asked, c: ((judged != c) & (asked == c)).float().mean(), "number of all samples"),
        (lambda judged, asked, c: ((judged != c) & (asked == c)).sum(), "not their share"),
        (lambda judged, asked, c: (asked[judged == c] != c).float().mean(), "by the verdict"),
    ]),
    "04.2": ("different", [("better", "than the definition"), ("worse", "is no ranking"), ("same", "not among the choices")]),
    "04.3": (lambda images, labels, c: (images[labels != c], labels[labels != c]), [
        (lambda images, labels, c: (images[labels == c], labels[labels == c]), "forget set"),
        (lambda images, labels, c: (images[labels != c], labels), "labels were not filtered"),
        (lambda images, labels, c: images[labels != c], "Both are wanted"),
        (lambda images, labels, c: (images * (labels != c)[:, None], labels), "blacked out"),
    ]),
}
