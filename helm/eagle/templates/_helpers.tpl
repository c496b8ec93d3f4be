{{/* One operator a cluster: EagleClusters are cluster-scoped. So the names are fixed, whatever the release is called. */}}
{{- define "eagle.name" -}}
eagle-operator
{{- end }}

{{- define "eagle.selector" -}}
app.kubernetes.io/name: eagle
app.kubernetes.io/component: operator
{{- end }}

{{- define "eagle.labels" -}}
{{ include "eagle.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "eagle.image" -}}
{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Nothing that a process without privileges needs. */}}
{{- define "eagle.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "eagle.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}
