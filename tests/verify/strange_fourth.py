"""The strangers of the fourth group: (topic, what is wrong or unusual, the function, whether it speaks torch)."""

MISTAKES, UNUSUAL = [], []


def _listed(entries, topic, words, speaks_torch):
    def kept(f):
        entries.append((topic, words, f, speaks_torch))
        return f

    return kept


def wrong(topic, fault, speaks_torch=False):
    return _listed(MISTAKES, topic, fault, speaks_torch)


def right(topic, habit, speaks_torch=False):
    return _listed(UNUSUAL, topic, habit, speaks_torch)
