"""One engine for every experiment of the papers: tasks, models and methods; thin users of the layers below."""
