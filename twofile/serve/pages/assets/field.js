// A field with its label. Emits "change" with the value.
const { h } = Vue;
let made = 0;

export default {
  props: { label: String, kind: String, value: null, told: Number, options: Array, atOnce: Boolean, more: Object },
  emits: ["change"],
  data() {
    return { held: this.value, name: `field-${++made}` };
  },
  watch: {
    told() {
      this.held = this.value;
    },
  },
  methods: {
    take(event) {
      const control = event.target;
      this.held = this.kind === "checkbox" ? control.checked : control.value;
      if (event.type === "change" || this.atOnce) this.$emit("change", this.held);
    },
  },
  render() {
    const given = { ...this.more, id: this.name, onInput: this.take };
    if (!this.atOnce) given.onChange = this.take;
    let control;
    if (this.kind === "select") {
      const options = (this.options || []).map(([value, words]) =>
        h("option", { value, selected: String(value) === String(this.held) }, words),
      );
      control = h("select", { ...given, value: this.held }, options);
    } else if (this.kind === "textarea") {
      control = h("textarea", { ...given, value: this.held });
    } else if (this.kind === "checkbox") {
      control = h("input", { ...given, type: "checkbox", checked: Boolean(this.held) });
    } else {
      control = h("input", { ...given, type: this.kind || "text", value: this.held, autocomplete: "off" });
    }
    const parts = [h("label", { for: this.name }, this.label), control];
    return h("div", { class: ["field", this.kind] }, this.kind === "checkbox" ? parts.reverse() : parts);
  },
};
