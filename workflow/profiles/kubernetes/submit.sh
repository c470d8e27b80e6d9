#!/bin/sh
# Submit a script of Snakemake as a Kubernetes job and print the job's name.
# Usage: submit.sh RULE THREADS MEMORY_MB MINUTES GPUS SCRIPT
set -eu
: "${K8S_IMAGE:?the image to run}" "${K8S_CLAIM:?the claim of the shared volume}"
: "${K8S_MOUNT:?the path where the volume is mounted, here and in the pods}"
rule=$(printf %s "$1" | tr _ -)
kubectl --namespace "${K8S_NAMESPACE:-default}" create -o 'jsonpath={.metadata.name}' -f - <<JOB
apiVersion: batch/v1
kind: Job
metadata:
  generateName: hybridlungvit-$rule-
spec:
  backoffLimit: 0
  activeDeadlineSeconds: $(($4 * 60))
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: job
          image: "$K8S_IMAGE"
          command: [/bin/sh, "$6"]
          resources:
            requests: {cpu: "$2", memory: "$3M", nvidia.com/gpu: "$5"}
            limits: {memory: "$3M", nvidia.com/gpu: "$5"}
          volumeMounts: [{name: study, mountPath: "$K8S_MOUNT"}]
      volumes:
        - {name: study, persistentVolumeClaim: {claimName: "$K8S_CLAIM"}}
JOB
