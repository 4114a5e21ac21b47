// Tokens with their boundaries. Those that can be chosen are buttons, one stop of the keyboard together: the arrow keys
// go from one to the next. Emits "pick" with the index. Each: [text, class, what is said of it].
const { h } = Vue;

export default {
  props: { tokens: Array, label: String, pickable: Boolean, chosen: Number, reveal: String },
  emits: ["pick"],
  data() {
    return { at: this.chosen >= 0 ? this.chosen : 0, picked: this.chosen };
  },
  watch: {
    tokens() {
      this.at = this.chosen >= 0 ? this.chosen : 0;
      this.picked = this.chosen;
    },
  },
  methods: {
    pick(index) {
      this.at = this.picked = index;
      this.$emit("pick", index);
      if (this.reveal) {
        setTimeout(() => document.querySelector(this.reveal)?.scrollIntoView({ block: "nearest" }), 350);
      }
    },
    key(event) {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.at = Math.max(0, Math.min(this.tokens.length - 1, this.at + step));
      this.$nextTick(() => this.$el.querySelector('[tabindex="0"]')?.focus());
    },
  },
  render() {
    const parts = [];
    this.tokens.forEach(([text, kind, about], index) => {
      const lines = text.split("\n").length - 1;
      const face = text.replaceAll("\n", "↵");
      const given = { key: index, class: ["token", kind, { picked: this.picked === index }], title: about || undefined };
      if (this.pickable) {
        const name = `${face.trim() ? face : "space"}: ${about}`;
        const more = { type: "button", tabindex: this.at === index ? 0 : -1, "aria-label": name };
        more["aria-pressed"] = String(this.picked === index);
        parts.push(h("button", { ...given, ...more, onClick: () => this.pick(index) }, face));
      } else {
        parts.push(h("span", given, face));
      }
      for (let i = 0; i < lines; i++) parts.push(h("br", { key: `${index}-${i}` }));
    });
    const given = { class: "tokens", role: "group", "aria-label": this.label };
    if (this.pickable) given.onKeydown = this.key;
    else given.tabindex = 0;
    return h("div", given, parts);
  },
};
