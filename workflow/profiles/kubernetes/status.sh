#!/bin/sh
# Say of one Kubernetes job what Snakemake wants to hear: running, success or failed.
set -eu
status='jsonpath={.status.conditions[?(@.status=="True")].type}'
types=$(kubectl --namespace "${K8S_NAMESPACE:-default}" get job "$1" -o "$status" --ignore-not-found)
case " $types " in
*" Complete "*) echo success ;;
*" Failed "*) echo failed ;;
*) echo running ;;
esac
