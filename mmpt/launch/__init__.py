"""From a project YAML to finished jobs: expansion, order, commands, running."""
