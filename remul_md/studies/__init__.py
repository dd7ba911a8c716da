"""One package per experiment of the papers: a generator, its models, its arms; thin users of the layers below."""
