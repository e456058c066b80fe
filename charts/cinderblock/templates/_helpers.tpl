{{- define "cinderblock.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Prefix of every object's name. 40 characters leave room for suffixes. */ -}}
{{- define "cinderblock.fullname" -}}
{{- $name := include "cinderblock.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cinderblock.selector" -}}
app.kubernetes.io/name: {{ include "cinderblock.name" .context }}
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "cinderblock.labels" -}}
{{ include "cinderblock.selector" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: cinderblock
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "cinderblock.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Pod Security "restricted", for every pod of the chart. */ -}}
{{- define "cinderblock.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "cinderblock.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "cinderblock.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* A short-lived pod that runs one command of our image against the API server. */ -}}
{{- define "cinderblock.taskPod" -}}
serviceAccountName: {{ .serviceAccount }}
restartPolicy: Never
securityContext: {{- include "cinderblock.podSecurityContext" .context | nindent 2 }}
containers:
  - name: {{ .name }}
    image: {{ include "cinderblock.image" .context }}
    imagePullPolicy: {{ .context.Values.image.pullPolicy }}
    args: {{- toYaml .args | nindent 6 }}
    resources:
      requests: {cpu: 50m, memory: 64Mi}
      limits: {memory: 256Mi}
    securityContext: {{- include "cinderblock.containerSecurityContext" .context | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
{{- with include "cinderblock.scheduling" .context | trim }}
{{ . }}
{{- end }}
{{- end -}}

{{- define "cinderblock.gateway.name" -}}
{{- include "cinderblock.fullname" . }}-gateway
{{- end -}}

{{- define "cinderblock.broker.name" -}}
{{- include "cinderblock.fullname" . }}-broker
{{- end -}}

{{- define "cinderblock.broker.tlsSecret" -}}
{{- default (printf "%s-tls" (include "cinderblock.broker.name" .)) .Values.broker.tls.secretName -}}
{{- end -}}

{{- define "cinderblock.embeddedStore.name" -}}
{{- include "cinderblock.fullname" . }}-store
{{- end -}}

{{- /* Without the cluster's domain, which the chart cannot know. The resolvers of pods complete it. */ -}}
{{- define "cinderblock.embeddedStore.endpoint" -}}
http://{{ include "cinderblock.embeddedStore.name" . }}.{{ .Release.Namespace }}.svc:7070
{{- end -}}

{{- /* Not empty if the uninstall hook is to be rendered. A lookup finds something only when Helm talks to a cluster.
       `helm template | kubectl apply` would run the hook at once, as an ordinary Job. */ -}}
{{- define "cinderblock.uninstall.enabled" -}}
{{- $mode := .Values.uninstall.releaseFinalizers -}}
{{- if eq $mode "always" -}}
true
{{- else if and (eq $mode "auto") (lookup "v1" "Namespace" "" "kube-system") -}}
true
{{- end -}}
{{- end -}}

{{- /* Annotations of an uninstall hook with the given weight. It is removed when it has succeeded, and stays if not. */ -}}
{{- define "cinderblock.uninstall.hook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* Stop if the gateway would receive callers' tokens from outside the cluster without TLS. */}}
{{- define "cinderblock.gateway.requireTls" -}}
{{- $gateway := .Values.gateway }}
{{- if not $gateway.allowPlaintext }}
{{- if and (ne $gateway.service.type "ClusterIP") (not $gateway.tls.secretName) }}
{{- fail (printf "gateway.service.type is %s without TLS, so the tokens of callers would travel unencrypted. Set gateway.tls.secretName to a Secret of type kubernetes.io/tls. If TLS ends before the cluster, set gateway.allowPlaintext=true." $gateway.service.type) }}
{{- end }}
{{- if and $gateway.ingress.enabled (not $gateway.ingress.tlsSecretName) }}
{{- fail "gateway.ingress.enabled is true without TLS, so the tokens of callers would travel unencrypted. Set gateway.ingress.tlsSecretName to a Secret of type kubernetes.io/tls. If the Ingress controller has its own certificate, set gateway.allowPlaintext=true." }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Whether the operator works on ClusterBackupStores: one release does, which works in all namespaces. Values of an
       older release have no such key. */ -}}
{{- define "cinderblock.clusterStores" -}}
{{- and (not .Values.watchNamespaces) (ne (toString (default dict .Values.stores).cluster) "false") -}}
{{- end -}}

{{- /* Whether claims are filled whose dataSourceRef names our kinds. Values of an older release have no such key. */ -}}
{{- define "cinderblock.populator" -}}
{{- ne (toString (default dict .Values.populator).enabled) "false" -}}
{{- end -}}

{{- /* Stop if there would be a broker without ClusterBackupStores. */ -}}
{{- define "cinderblock.broker.requireStores" -}}
{{- if ne (include "cinderblock.clusterStores" .) "true" }}
{{- fail "broker.enabled is true, but this release does not work on ClusterBackupStores. They need stores.cluster=true, and a release without watchNamespaces." }}
{{- end }}
{{- end -}}

{{- /* Which schedules the operator works on: all, namespaced or none. Values of an older release have no such key. */ -}}
{{- define "cinderblock.schedules" -}}
{{- $values := default dict .Values.schedules -}}
{{- if eq (toString $values.enabled) "false" }}none{{ else if eq (toString $values.cluster) "false" }}namespaced{{ else }}all{{ end -}}
{{- end -}}
