"""Ways to make a node do something: playbooks, commands, files. They report what happened; they do not decide."""
