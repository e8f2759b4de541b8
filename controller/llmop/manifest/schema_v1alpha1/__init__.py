"""The kinds of `llmop/v1alpha1` as users write them: names, types, limits, defaults, and a description of every field.

What belongs here: what one object may say by itself. Rules between objects are in `references`, meanings in `convert`.
"""

from llmop.domain import resources
from llmop.manifest.schema_v1alpha1 import apikey, assistant, cluster, deployment, profile, runtime, tribunal
from llmop.manifest.schema_v1alpha1.fields import Fields
from llmop.manifest.schema_v1alpha1.metadata import InstallationMetadata, Metadata

__all__ = ["ATOMIC", "SPECS", "Fields", "InstallationMetadata", "Metadata"]

SPECS: dict[str, type[Fields]] = {
    resources.MODEL_DEPLOYMENT: deployment.ModelDeploymentSpec,
    resources.SERVING_RUNTIME: runtime.ServingRuntimeSpec,
    resources.RESOURCE_PROFILE: profile.ResourceProfileSpec,
    resources.CLUSTER: cluster.ClusterSpec,
    resources.API_KEY: apikey.APIKeySpec,
    resources.TRIBUNAL: tribunal.TribunalSpec,
    resources.ASSISTANT: assistant.AssistantSpec,
}

# Mappings that are one value: JSON for an engine, in which null and empty mean something.
ATOMIC = frozenset({"spec.probes.warmup.body"})
