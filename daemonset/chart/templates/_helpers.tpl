{{/* Image of a component: (list $ IMAGE) gives a reference. */}}
{{- define "strake.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if contains "/" $image -}}
{{- $image -}}
{{- else -}}
{{- $hub := $root.Values.global.hub -}}
{{- if not (kindIs "string" $hub) -}}
{{- fail "global.hub is missing: name the registry and path to which the images were pushed, for instance --set global.hub=HOST/PROJECT (scripts/images.sh and the Dockerfile make them)" -}}
{{- end -}}
{{- $name := printf "%s:%s" $image ($root.Values.global.tag | default $root.Chart.AppVersion) -}}
{{- if $hub }}{{ trimSuffix "/" $hub }}/{{ end }}{{ $name -}}
{{- end -}}
{{- end -}}

{{/* Directories of a node by the platform: (list $ KEY) gives a path. */}}
{{- define "strake.nodeDir" -}}
{{- $root := index . 0 -}}
{{- $key := index . 1 -}}
{{- $platforms := dict
  "gke" (dict "cniBinDir" "/home/kubernetes/bin")
  "k3s" (dict "cniConfDir" "/var/lib/rancher/k3s/agent/etc/cni/net.d" "cniBinDir" "/var/lib/rancher/k3s/data/cni")
  "k3d" (dict "cniConfDir" "/var/lib/rancher/k3s/agent/etc/cni/net.d" "cniBinDir" "/bin")
  "microk8s" (dict "cniConfDir" "/var/snap/microk8s/current/args/cni-network" "cniBinDir" "/var/snap/microk8s/current/opt/cni/bin")
  "minikube" (dict "cniNetnsDir" "/var/run/docker/netns") -}}
{{- $defaults := dict "cniConfDir" "/etc/cni/net.d" "cniBinDir" "/opt/cni/bin" "cniNetnsDir" "/var/run/netns" -}}
{{- $platform := get $platforms $root.Values.global.platform | default dict -}}
{{- get $root.Values.cni $key | default (get $platform $key) | default (get $defaults $key) -}}
{{- end -}}

{{/* Fields of every pod specification that the user chooses: (list $ COMPONENT). */}}
{{- define "strake.scheduling" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- with $component.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $component.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Environment that the user adds to a container: (list COMPONENT HAS-JSON-LOGS). */}}
{{- define "strake.env" -}}
{{- $component := index . 0 -}}
{{- if index . 1 }}
- name: LOG_FORMAT
  value: json
{{- end }}
{{- with $component.logLevel }}
- name: RUST_LOG
  value: {{ . | quote }}
{{- end }}
{{- range $name, $value := $component.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* Checks of what a schema cannot say. Renders nothing. */}}
{{- define "strake.check" -}}
{{- if ne .Release.Namespace "istio-system" -}}
{{- fail (printf "the mesh is installed in the namespace istio-system, not in %s: strake and policies of the whole mesh look for it there; add --namespace istio-system" .Release.Namespace) -}}
{{- end -}}
{{- $network := .Values.global.network -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace -}}
{{- if and $network $namespace (not .Values.namespace.create) -}}
{{- $found := get (($namespace.metadata).labels | default dict) "topology.istio.io/network" -}}
{{- if ne $found $network -}}
{{- fail (printf "global.network is %q, and the label topology.istio.io/network of the namespace %s is %q: kubectl label namespace %s topology.istio.io/network=%s --overwrite" $network .Release.Namespace $found .Release.Namespace $network) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Annotations of an object of the hook of `helm uninstall`: (WEIGHT). */}}
{{- define "strake.preDelete" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* Binding of a policy of admission, for the whole cluster: (NAME). */}}
{{- define "strake.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ . }}
spec:
  policyName: {{ . }}
  validationActions: [Deny]
{{- end -}}
