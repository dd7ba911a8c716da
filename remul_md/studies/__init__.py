"""One package per experiment of the papers: a generator, its models, its methods; thin users of the layers below."""
