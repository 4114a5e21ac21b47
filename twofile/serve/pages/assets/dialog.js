// A dialog before the page: the browser keeps the focus in it, and gives it back.
const { h } = Vue;
let made = 0;

export default {
  props: { title: String, open: Boolean },
  emits: ["close"],
  data() {
    return { name: `dialog-${++made}` };
  },
  mounted() {
    this.show();
  },
  updated() {
    this.show();
  },
  methods: {
    show() {
      const dialog = this.$refs.dialog;
      if (this.open && !dialog.open) dialog.showModal();
      if (!this.open && dialog.open) dialog.close();
    },
  },
  render() {
    const cross = h(
      "button",
      { type: "button", class: "button quiet", "aria-label": "Close", onClick: () => this.$refs.dialog.close() },
      "×",
    );
    const head = h("div", { class: "head" }, [h("h2", { id: this.name }, this.title), cross]);
    const inner = this.open ? this.$slots.default?.() : [];
    return h(
      "dialog",
      {
        ref: "dialog",
        "aria-labelledby": this.name,
        onClose: () => this.$emit("close"),
        onPointerdown: (event) => event.target === this.$refs.dialog && this.$refs.dialog.close(),
      },
      h("div", { class: "inner" }, [head, inner]),
    );
  },
};
