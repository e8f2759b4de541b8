"""How an engine is started: from a ServingRuntime and a deployment's template to argv, environment, ports, probes and sbatch options.

What belongs here: pure rendering, the texts of the built-in runtimes and profiles, and launchers for engines that need one (`engines`).
What does not: parsing manifests (`manifest`), running anything (`agent`), deciding when (`planner`).
"""
