{{- define "cinderblock.admission.enabled" -}}
{{- /* A lookup finds something only when Helm talks to a cluster. Without one, the chart's kubeVersion tells. */ -}}
{{- $kind := "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- if .Values.admissionPolicies.enabled -}}
{{- if or (.Capabilities.APIVersions.Has $kind) (not (lookup "v1" "Namespace" "" "kube-system")) -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The mover's images, with any tag or digest: during an upgrade, the operator of the old release may still act. */ -}}
{{- define "cinderblock.admission.moverImages" -}}
{{- include "cinderblock.admission.images" (prepend .Values.admissionPolicies.moverImages .Values.image.repository) -}}
{{- end -}}

{{- /* A regular expression in CEL for images with one of these names. Without names, it matches nothing. */ -}}
{{- define "cinderblock.admission.images" -}}
{{- $names := list -}}
{{- range . }}{{ $names = append $names (regexQuoteMeta .) }}{{ end -}}
{{- $reference := "(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?" -}}
r'{{ if $names }}^({{ join "|" $names }}){{ $reference }}${{ else }}^a^{{ end }}'
{{- end -}}

{{- /* Volumes with the paths of their mounts, as a list of strings in CEL. */ -}}
{{- define "cinderblock.admission.mounts" -}}
{{- $mounts := list -}}
{{- range $name, $path := . }}{{ $mounts = append $mounts (printf "%s:%s" $name $path) }}{{ end -}}
{{- include "cinderblock.admission.list" $mounts -}}
{{- end -}}

{{- /* A list of strings in CEL. */ -}}
{{- define "cinderblock.admission.list" -}}
{{- $quoted := list -}}
{{- range . }}{{ $quoted = append $quoted (printf "'%s'" .) }}{{ end -}}
[{{ join ", " $quoted }}]
{{- end -}}

{{- define "cinderblock.admission.operator" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "cinderblock.fullname" . }}
{{- end -}}

{{- /* The object before and after a write, and its metadata. */ -}}
{{- define "cinderblock.admission.variables" -}}
- name: after
  expression: "object == null ? oldObject : object"
- name: before
  expression: "oldObject == null ? object : oldObject"
- name: labels
  expression: variables.after.metadata.?labels.orValue({})
- name: oldLabels
  expression: variables.before.metadata.?labels.orValue({})
- name: annotations
  expression: variables.after.metadata.?annotations.orValue({})
- name: oldAnnotations
  expression: variables.before.metadata.?annotations.orValue({})
- name: finalizers
  expression: variables.after.metadata.?finalizers.orValue([])
- name: oldFinalizers
  expression: variables.before.metadata.?finalizers.orValue([])
- name: owners
  expression: variables.after.metadata.?ownerReferences.orValue([])
- name: oldOwners
  expression: variables.before.metadata.?ownerReferences.orValue([])
{{- end -}}

{{- /* Conditions about the key of a label or annotation. */ -}}
{{- define "cinderblock.admission.isOurs" -}}
({{ . }}.startsWith('cinderblock.io/') || {{ . }} == 'app.kubernetes.io/managed-by')
{{- end -}}

{{- define "cinderblock.admission.isOfKubernetes" -}}
({{ . }}.matches('^([^/]+[.-])?(kubernetes|k8s)[.]io/') && !{{ . }}.startsWith('app.kubernetes.io/'))
{{- end -}}

{{- define "cinderblock.admission.ownership" -}}
- name: uid
  expression: variables.oldLabels[?'cinderblock.io/owner-uid'].orValue('')
- name: isChild
  expression: >-
    variables.oldOwners.exists(o, o.apiVersion.startsWith('cinderblock.io/')
    && o.kind in ['VolumeBackup', 'VolumeRestore', 'BackupVerification', 'BackupStore']
    && (o.uid == variables.uid || variables.before.metadata.name == 'cinderblock-' + o.uid))
- name: isOrphan
  expression: >-
    variables.oldOwners.size() == 0 && variables.uid != '' && variables.before.metadata.name == 'cinderblock-' + variables.uid
    && variables.oldLabels[?'app.kubernetes.io/managed-by'].orValue('') == 'cinderblock'
# Users choose how many labels and annotations there are, so most writes only compare them as a whole.
{{- range $part, $name := dict "labels" "changedLabels" "annotations" "changedAnnotations" }}
- name: {{ $name }}
  expression: >-
    {{- $old := printf "variables.old%s" (title $part) }}
    variables.{{ $part }} == {{ $old }} ? []
    : variables.{{ $part }}.filter(key, {{ include "cinderblock.admission.isOurs" "key" }}
    && variables.{{ $part }}[?key] != {{ $old }}[?key])
    + {{ $old }}.filter(key, {{ include "cinderblock.admission.isOurs" "key" }} && !(key in variables.{{ $part }}))
{{- end }}
- name: changedFinalizers
  expression: >-
    (variables.finalizers + variables.oldFinalizers).filter(name, name.startsWith('cinderblock.io/')
    && (name in variables.finalizers) != (name in variables.oldFinalizers))
- name: keepsForeign
  expression: >-
    {{- range $part := list "labels" "annotations" }}
    {{- $old := printf "variables.old%s" (title $part) }}
    (variables.{{ $part }} == {{ $old }} || ({{ $old }}.all(key, {{ include "cinderblock.admission.isOurs" "key" }}
    || variables.{{ $part }}[?key] == {{ $old }}[?key]
    || (key in variables.{{ $part }} && !{{ include "cinderblock.admission.isOfKubernetes" "key" }}))
    && variables.{{ $part }}.all(key, {{ include "cinderblock.admission.isOurs" "key" }} || key in {{ $old }}
    || !{{ include "cinderblock.admission.isOfKubernetes" "key" }}))) &&
    {{- end }}
    variables.oldFinalizers.all(name, name.startsWith('cinderblock.io/') || name in variables.finalizers)
    && variables.finalizers.all(name, name.startsWith('cinderblock.io/') || name in variables.oldFinalizers)
    && variables.oldOwners.all(o, o.apiVersion.startsWith('cinderblock.io/') || o in variables.owners)
{{- end -}}

{{- /* The marks of an object that a write sets, changes or removes: `variables.changed`. */ -}}
{{- define "cinderblock.admission.changedMarks" -}}
# Before an object exists, it has no marks.
- name: hadLabels
  expression: "oldObject == null ? {} : variables.oldLabels"
- name: hadAnnotations
  expression: "oldObject == null ? {} : variables.oldAnnotations"
- name: hadFinalizers
  expression: "oldObject == null ? [] : variables.oldFinalizers"
- name: wasOurs
  expression: "variables.hadLabels[?'app.kubernetes.io/managed-by'].orValue('') == 'cinderblock'"
- name: isOurs
  expression: "variables.labels[?'app.kubernetes.io/managed-by'].orValue('') == 'cinderblock'"
# The labels and annotations of a Binding replace those of its pod, which may be a mover's.
- name: isBinding
  expression: request.kind.kind == 'Binding'
- name: changed
  expression: >-
    {{- $policy := . }}
    {{- range $part := list (list "labels" "variables.labels[?name] != variables.hadLabels[?name]")
        (list "annotations" "variables.annotations[?name] != variables.hadAnnotations[?name]")
        (list "finalizers" "(name in variables.finalizers) != (name in variables.hadFinalizers)") }}
    {{- with index $policy (first $part) }}
    {{ include "cinderblock.admission.list" . }}.filter(name, {{ last $part }}) +
    {{- end }}
    {{- end }}
    {{- if $policy.children }}
    (variables.isOurs != variables.wasOurs || (variables.isBinding && 'app.kubernetes.io/managed-by' in variables.labels)
    ? ['app.kubernetes.io/managed-by'] : []) +
    (variables.wasOurs && variables.owners != variables.oldOwners ? ['ownerReferences'] : []) +
    {{- end }}
    ['none'].filter(name, false)
{{- end -}}

{{- /* The marks of children that a write adds to the templates in an object: `variables.changed`. */ -}}
{{- define "cinderblock.admission.markedTemplates" -}}
{{- range $suffix, $root := dict "" "object" "Before" "oldObject" }}
# The template of a pod, or the pod itself, and the metadata of everything that a controller makes from the object.
- name: template{{ $suffix }}
  expression: >-
    {{ $root }} == null ? {} : has({{ $root }}.spec.containers) ? {'spec': {{ $root }}.spec}
    : {{ $root }}.spec.?template.orValue({{ $root }}.spec.?jobTemplate.?spec.?template.orValue({}))
- name: made{{ $suffix }}
  expression: >-
    {{ $root }} == null ? [] : [variables.template{{ $suffix }}.?metadata.orValue({}),
    {{ $root }}.spec.?jobTemplate.?metadata.orValue({})]
    + {{ $root }}.spec.?volumeClaimTemplates.orValue([]).map(claim, claim.?metadata.orValue({}))
    + variables.template{{ $suffix }}.?spec.?volumes.orValue([]).filter(volume, has(volume.ephemeral))
    .map(volume, volume.ephemeral.?volumeClaimTemplate.?metadata.orValue({}))
{{- end }}
- name: changed
  expression: >-
    {{- $policy := . }}
    {{- range $part := list "labels" "annotations" }}
    {{ include "cinderblock.admission.list" (index $policy $part) }}.filter(name, variables.made.exists(new,
    new.?{{ $part }}[?name].hasValue()
    && !variables.madeBefore.exists(old, old.?{{ $part }}[?name] == new.?{{ $part }}[?name]))) +
    {{- end }}
    {{ include "cinderblock.admission.list" $policy.finalizers }}.filter(name,
    variables.made.exists(new, name in new.?finalizers.orValue([]))
    && !variables.madeBefore.exists(old, name in old.?finalizers.orValue([]))) +
    ['app.kubernetes.io/managed-by'].filter(name,
    variables.made.exists(new, new.?labels[?name].orValue('') == 'cinderblock')
    && !variables.madeBefore.exists(old, old.?labels[?name].orValue('') == 'cinderblock'))
{{- end -}}

{{- /* A binding of the policy with this name. */ -}}
{{- define "cinderblock.admission.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "cinderblock.labels" (dict "context" .context "component" "admission") | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: {{- toYaml .context.Values.admissionPolicies.validationActions | nindent 4 }}
{{- end -}}
