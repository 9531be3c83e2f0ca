"""What the package looks like in two minutes: a gallery, questions put to a model, a table and a contact sheet."""
