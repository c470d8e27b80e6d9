#!/bin/sh
# Delete Kubernetes jobs by name, with their pods, without waiting for them to end.
exec kubectl --namespace "${K8S_NAMESPACE:-default}" delete job --wait=false "$@"
